"""The x_t that DDIM leads back to an image: DDIM inversion."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.errors import whole_number
from ddpm.latents.batches import batches, counted
from ddpm.latents.levels import chain_through, check_level
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress
from ddpm.sampling import inversion


def invert(
    model: Ddpm,
    images: UInt8[Tensor, "n c h w"],
    t: int | None = None,
    *,
    plan: Plan | None = None,
    corrections: int = inversion.CORRECTIONS,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "n c h w"]:
    """The x_t from which `denoise(..., sampler="ddim")` of the same plan returns to the images.

    It returns to them the closer the more steps are taken; see `ddpm.sampling.inversion`.

    Args:
        model: whose reverse process.
        images: grey levels of the model's format.
        t: steps of diffusion, 0..T, T by default; with 0 the images come back, in [-1, 1].
        plan: timesteps; all T by default. Those below t - 1 are visited, and t - 1 itself.
        corrections: of each step, at least 0; each is another network call a step.
        batch_size: images at a time, at least 1; 64 by default, or fewer large ones.
        progress: counts network calls.

    Returns:
        float32, on the CPU.

    Raises:
        DdpmError: images of another format, a number out of range, or a plan that does not fit.
    """
    model.format.check(images)
    t = check_level(model, model.diffusion.num_timesteps if t is None else t)
    whole_number("corrections", corrections, 0)
    parts = batches(model, len(images), batch_size)
    _, plan = model.plan_samples("ddim", plan)
    found = model.format.to_unit(images.cpu())
    if t == 0:
        return found
    chain, stop = chain_through(model, plan, t)
    calls = len(parts) * (stop + 1) * (corrections + 1)
    denoiser = counted(model, progress, calls, "inverting")
    for part in parts:
        with torch.inference_mode():
            x = found[part].to(model.device)
            x = inversion.invert(chain, denoiser, x, stop=stop, corrections=corrections)
            found[part] = x.cpu()
    return found
