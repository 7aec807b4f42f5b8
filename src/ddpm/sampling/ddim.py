"""DDIM (Song, Meng & Ermon 2021): deterministic at eta = 0, ancestral-like at eta = 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices


@register("sampler", "ddim")
@dataclass(frozen=True)
class Ddim:
    """Follow DDIM's Eq. 12 down to t = 0.

    Args:
        eta: scales the noise of each step, sigma_t = eta sqrt(beta~_t) (DDIM's Eq. 16); in [0, 1].

    Raises:
        DdpmError: eta is out of range.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        check(0 <= self.eta <= 1, f"eta must lie in [0, 1], got {self.eta:g}")

    def __call__(
        self,
        diffusion: GaussianDiffusion,
        denoiser: Denoiser,
        x: Tensor,
        noise: NoiseSource,
        *,
        start: int | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """See `ddpm.Sampler`."""
        schedule = diffusion.schedule
        for index in reverse_indices(diffusion, start):
            p, t = predict(diffusion, denoiser, x, index, callback)
            epsilon = diffusion.epsilon_from_xstart(p.pred_xstart, x, t)
            # Plain float64 numbers: 1 - abar - variance cancels almost completely near t = 0.
            abar_prev = float(schedule.alphas_cumprod_prev[index])
            variance = self.eta**2 * float(schedule.posterior_variance[index])
            direction = math.sqrt(max(1 - abar_prev - variance, 0.0))
            x = math.sqrt(abar_prev) * p.pred_xstart + direction * epsilon
            if index > 0 and self.eta > 0:
                x = x + math.sqrt(variance) * noise(index)
        return x
