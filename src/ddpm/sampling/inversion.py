"""DDIM run upwards: from an image to the x_t that DDIM leads back to it (Song et al. 2021).

In y = x / sqrt(abar) and s = sqrt(1 - abar) / sqrt(abar) the step of `Ddim` with eta = 0 from level
i down to i - 1 is y_{i-1} = y_i + (s_{i-1} - s_i) eps_theta(x_i, t_i): Euler's method for
dy/ds = eps (their Eq. 13-14). It is undone exactly by the x_i that solves

    y_i = y_{i-1} + (s_i - s_{i-1}) eps_theta(x_i, t_i),

where eps is asked at the level that the step reaches. A first guess of x_i asks it where the step
begins, at x_{i-1} and its own time t_{i-1} (Euler's method upwards); each correction asks it at the
last guess of x_i and at t_i. The guess alone returns to the image with an error of the order of the
steps' length, one correction with its square, and many without.

Where the model clips the predicted x_0, `Ddim` takes the noise that leads from the clipped x_0 to
x_i for eps_theta; so does this, and the step is undone all the same.
"""

from __future__ import annotations

import math

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import whole_number
from ddpm.sampling.base import predict, reverse_indices

CORRECTIONS = 1  # a second one pays where steps are few (docs/latents.md)


def invert(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x: Tensor,
    *,
    stop: int | None = None,
    corrections: int = CORRECTIONS,
) -> Tensor:
    """Follow DDIM's equation up from the image.

    The image itself lies below every level that the network was trained at (abar = 1, s = 0), so
    the first guess asks at the lowest level of the chain.

    Args:
        diffusion: the chain; fewer steps come from `diffusion.respace(...)`.
        denoiser: the network.
        x: images in [-1, 1], [b, c, h, w].
        stop: the time index to end at, K-1 by default; stop + 1 steps are taken.
        corrections: of each step, at least 0; a step calls the network once more than that.

    Returns:
        x_t at time index `stop`, [b, c, h, w].

    Raises:
        DdpmError: `stop` is no time index of the chain, or corrections are out of range.
    """
    whole_number("corrections", corrections, 0)
    abar = diffusion.schedule.alphas_cumprod
    below = diffusion.schedule.alphas_cumprod_prev
    for index in reversed(list(reverse_indices(diffusion, stop))):
        guess = x
        for asked in [max(index - 1, 0)] + [index] * corrections:
            epsilon = _epsilon(diffusion, denoiser, guess, asked)
            x_start = (x - math.sqrt(1 - below[index]) * epsilon) / math.sqrt(below[index])
            guess = math.sqrt(abar[index]) * x_start + math.sqrt(1 - abar[index]) * epsilon
        x = guess
    return x


def _epsilon(diffusion: GaussianDiffusion, denoiser: Denoiser, x: Tensor, index: int) -> Tensor:
    """The noise that `Ddim` sees in x at a time index."""
    p, t = predict(diffusion, denoiser, x, index, None)
    return diffusion.epsilon_from_xstart(p.pred_xstart, x, t)
