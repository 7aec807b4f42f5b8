"""From an image to x_t by the forward process (Eq. 4), and back by the reverse one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.errors import check, whole_number
from ddpm.latents.batches import batches, counted
from ddpm.latents.levels import chain_through, check_level
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress
from ddpm.runtime.randomness import Randomness
from ddpm.sampling import Callback, Sampler, network_calls


def diffuse(
    model: Ddpm,
    images: UInt8[Tensor, "n c h w"],
    t: int,
    *,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> Float[Tensor, "n c h w"]:
    """x_t ~ q(x_t | x_0) (Eq. 4).

    Args:
        model: whose forward process.
        images: grey levels of the model's format.
        t: steps of diffusion, 0..T; with 0 the images come back, in [-1, 1].
        seed: which noise.
        numbers: which noise of the seed each image gets, 0, 1, 2, ... by default. It is the same
            noise at every t.

    Returns:
        float32, on the CPU.

    Raises:
        DdpmError: images of another format, or a number out of range.
    """
    model.format.check(images)
    t = check_level(model, t)
    index = _index(numbers, len(images), seed)
    x = model.format.to_unit(images.cpu())
    if t == 0:
        return x
    noise = Randomness(seed, "diffuse").normal(index, model.format.shape)
    return model.diffusion.q_sample(x, torch.full((len(x),), t - 1), noise)


def denoise(
    model: Ddpm,
    x_t: Float[Tensor, "n c h w"],
    t: int,
    *,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    sampler: str | Sampler = "ancestral",
    plan: Plan | None = None,
    eta: float | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
    progress: Progress | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """Walk the reverse process from x_t to the image; the step that leaves x_t is taken too.

    From t = T and the noise that `Ddpm.sample` begins with, this is `Ddpm.sample`.

    Args:
        model: whose reverse process.
        x_t: the images after t steps of diffusion.
        t: that number, 0..T; with 0 nothing is left to do but to round.
        seed: which noise of the reverse process; it has nothing to do with that of `diffuse`.
        numbers: which noise of the seed each image gets, 0, 1, 2, ... by default.
        sampler, plan, eta: as in `Ddpm.sample`. Of the plan's timesteps those below t - 1 are
            visited, after t - 1 itself.
        batch_size: images at a time, at least 1; 64 by default, or fewer large ones.
        callback: sees every step of every batch; `SampleState.first` is the place in x_t of the
            batch's first image.
        progress: counts network calls.

    Returns:
        Grey levels, on the CPU.

    Raises:
        DdpmError: x_t of another shape, an unknown sampler, a plan that does not fit, or a number
            out of range.
    """
    check_latents(model, x_t)
    t = check_level(model, t)
    index, parts = _index(numbers, len(x_t), seed), batches(model, len(x_t), batch_size)
    draw, plan = model.plan_samples(sampler, plan, eta=eta)
    images = torch.empty(x_t.shape, dtype=torch.uint8)
    if t == 0:
        return images.copy_(model.format.from_unit(x_t))
    chain, start = chain_through(model, plan, t)
    calls = len(parts) * network_calls(draw, start + 1)
    denoiser = counted(model, progress, calls, "sampling")
    for part in parts:
        shown = None if callback is None else _placed(callback, int(part[0]))
        with torch.inference_mode():
            x = x_t[part].to(model.device, torch.float32)
            noise = model.noise(index[part], seed)
            x = draw(chain, denoiser, x, noise, start=start, callback=shown)
            images[part] = model.format.from_unit(x).cpu()
    return images


def check_latents(model: Ddpm, x_t: Tensor) -> None:
    """Refuse what is no x_t of the model.

    Raises:
        DdpmError: another shape, or grey levels instead of numbers in [-1, 1] and noise.
    """
    check(
        x_t.is_floating_point(),
        f"x_t must be of a float type, got {x_t.dtype}; ddpm.latents.diffuse makes it of images",
    )
    check(
        x_t.ndim == 4 and tuple(x_t.shape[1:]) == model.format.shape,
        f"this model expects x_t of shape {model.format.shape}, got {tuple(x_t.shape[1:])}",
    )


def _index(numbers: Sequence[int] | None, count: int, seed: int) -> Tensor:
    """The numbers of the images, a long vector."""
    whole_number("the seed", seed, 0)
    if numbers is None:
        return torch.arange(count)
    check(
        len(numbers) == count,
        f"there are {len(numbers)} numbers for {count} images; give one for each",
    )
    return torch.tensor([whole_number("the number of an image", i, 0) for i in numbers]).long()


def _placed(callback: Callback, first: int) -> Callback:
    """A callback that is told the place of the batch's first image."""
    return lambda state: callback(replace(state, first=first))
