"""DPM-Solver++(2M) (Lu et al. 2022): good images in 10 to 20 network calls, deterministic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices


@register("sampler", "dpm-solver")
@dataclass(frozen=True)
class DpmSolver:
    """Solve the probability-flow ODE with the multistep method of order two on x_0.

    In lambda = log(sqrt(abar) / sqrt(1 - abar)) the exact step over h is
    x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D, and D is x_0 extrapolated from the last
    two predictions. The step to the clean image is of order one: D = x_0. Noise is not used.
    """

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
        alpha, sigma = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
        previous: Tensor | None = None
        last_h = 0.0
        for index in reverse_indices(diffusion, start):
            p, _ = predict(diffusion, denoiser, x, index, callback)
            if index == 0:
                return p.pred_xstart
            s = index - 1
            if alpha[s] == 0:  # from pure noise to pure noise
                continue
            # e^-h as a ratio, which holds where the signal is gone.
            shrunk = float(alpha[index] * sigma[s] / (sigma[index] * alpha[s]))
            h = -math.log(shrunk) if shrunk > 0 else math.inf
            direction = p.pred_xstart
            if previous is not None and math.isfinite(last_h):
                direction = direction + 0.5 * h / last_h * (p.pred_xstart - previous)
            x = float(sigma[s] / sigma[index]) * x + float(alpha[s]) * (1 - shrunk) * direction
            previous, last_h = p.pred_xstart, h
        return x
