"""Ancestral sampling: the paper's Algorithm 2."""

from __future__ import annotations

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices


def ancestral(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x: Tensor,
    noise: NoiseSource,
    *,
    start: int | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw x_{t-1} ~ N(mu_theta(x_t, t), sigma_t^2 I) down to t = 0, where no noise is added.

    See `ddpm.sampling` for the arguments.
    """
    for index in reverse_indices(diffusion, start):
        p, _ = predict(diffusion, denoiser, x, index, callback)
        x = p.mean
        if index > 0:
            x = x + (0.5 * p.log_variance).exp() * noise(index)
    return x
