"""Ancestral sampling: the paper's Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices


@register("sampler", "ancestral")
@dataclass(frozen=True)
class Ancestral:
    """Draw x_{t-1} ~ N(mu_theta(x_t, t), sigma_t^2 I) down to t = 0, where no noise is added.

    The variance may be another in each pixel (analytic), or in each coordinate of a rotation
    (spectral).
    """

    knows_rotation: ClassVar[bool] = True

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
        for index in reverse_indices(diffusion, start):
            p, _ = predict(diffusion, denoiser, x, index, callback)
            x = diffusion.p_sample(p, noise(index)) if index > 0 else p.mean
        return x
