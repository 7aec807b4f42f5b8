"""Between two images, mixed after t steps of diffusion (the paper's section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.errors import check
from ddpm.latents.diffusing import denoise, diffuse
from ddpm.latents.inverting import invert
from ddpm.latents.levels import check_level
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress
from ddpm.sampling import Ddim, Sampler, get_sampler

PARALLEL = 1e-4  # sine of the angle below which an arc is a straight line


def interpolate(
    model: Ddpm,
    first: UInt8[Tensor, "n c h w"],
    second: UInt8[Tensor, "n c h w"],
    weights: Sequence[float],
    t: int,
    *,
    seed: int = 0,
    sampler: str | Sampler = "ancestral",
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> UInt8[Tensor, "k n c h w"]:
    """Images between pairs of images.

    Both are diffused with noise of their own, x_t, x'_t ~ q(x_t | .), mixed to
    x-bar_t = (1 - lambda) x_t + lambda x'_t, and decoded from there. The noise of both the forward
    and the reverse process is the same for every lambda.

    With the sampler ddim, which adds no noise, x_t and x'_t come from `invert`, so that lambda = 0
    and 1 give the images back as well as DDIM can; and they are mixed on the arc between them
    (Song et al. 2021, Eq. 67), whose points are as long as noise is.

    Args:
        model: whose forward and reverse process.
        first, second: grey levels of the model's format, equally many.
        weights: lambda, k numbers in [0, 1]: how much of the second image.
        t: steps of diffusion, 0..T; 0 mixes pixels, on a straight line with every sampler.
        seed: which noise.
        sampler, plan: as in `Ddpm.sample`.
        progress: counts network calls.

    Returns:
        Grey levels, on the CPU.

    Raises:
        DdpmError: images of another format or number, or a number out of range.
    """
    _check(first, second, weights)
    t, draw = check_level(model, t), get_sampler(sampler)
    if isinstance(draw, Ddim) and draw.eta == 0 and t > 0:
        both = invert(model, torch.cat([first, second]), t, plan=plan, progress=progress)
        mix, x, y = arc, both[: len(first)], both[len(first) :]
    else:  # noise of its own for each image of a pair, however many pairs there are
        mix, numbers = straight, range(2 * len(first))
        x = diffuse(model, first, t, seed=seed, numbers=numbers[::2])
        y = diffuse(model, second, t, seed=seed, numbers=numbers[1::2])
    images = denoise(
        model,
        torch.cat([mix(x, y, weight) for weight in weights]),
        t,
        seed=seed,
        numbers=[*range(len(first))] * len(weights),
        sampler=draw,
        plan=plan,
        progress=progress,
    )
    return images.reshape(len(weights), *first.shape)


def _check(first: Tensor, second: Tensor, weights: Sequence[float]) -> None:
    """Refuse images that make no pairs, and weights out of range."""
    check(
        len(first) == len(second),
        f"images are mixed in pairs, but there are {len(first)} and {len(second)}",
    )
    check(len(weights) > 0, "an interpolation needs at least one weight")
    for weight in weights:
        check(0 <= weight <= 1, f"the weight of the second image must lie in [0, 1], got {weight}")


def straight(
    x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"], weight: float
) -> Float[Tensor, "n c h w"]:
    """(1 - weight) x + weight y."""
    return (1 - weight) * x + weight * y


def arc(
    x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"], weight: float
) -> Float[Tensor, "n c h w"]:
    """Song et al. 2021, Eq. 67: sin((1-w) a) / sin(a) x + sin(w a) / sin(a) y, a the angle.

    Where the two point the same way, or in opposite ones, the straight line is taken.
    """
    cosine = torch.nn.functional.cosine_similarity(x.flatten(1).double(), y.flatten(1).double())
    angle = cosine.clamp(-1, 1).arccos().reshape(-1, 1, 1, 1)
    sine = angle.sin()
    bent = ((1 - weight) * angle).sin() / sine * x + (weight * angle).sin() / sine * y
    return torch.where(sine < PARALLEL, straight(x, y, weight), bent).to(x.dtype)
