"""Heun's method on the probability-flow ODE, as in EDM (Karras et al. 2022), without churn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices

TINY = 1e-300  # instead of a division by 0


@register("sampler", "heun")
@dataclass(frozen=True)
class Heun:
    """Follow dy/ds = (y - D) / s to order two, in y = x / sqrt(abar) and s = sigma / alpha.

    A step is Euler's, the same as DDIM's, and is then taken again with the mean of the slopes at
    its two ends; the last one ends in the image, where there is no slope, and stays Euler's,
    x_0 = D. So K steps cost 2 K - 1 network calls. Noise is not used.

    With y = D_t + (s_s / s_t) (y_t - D_t) in the second slope, the mean of both is Euler's step and
    (s_t / s_s - 1) / 2 times D_s - D_t. Where s falls to less than its half that is more than if
    D_s had held all the way, 1 - s_s / s_t, and grows without bound as steps become long or begin
    in pure noise, where s is infinite; so no more than that is taken. Shorter steps are EDM's.
    """

    @property
    def calls_per_step(self) -> int:
        """Network calls of every step but the last, which takes one."""
        return 2

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
        """See `ddpm.Sampler`; the callback sees the first call of every step."""
        schedule = diffusion.schedule
        alpha, sigma = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
        for index in reverse_indices(diffusion, start):
            p, _ = predict(diffusion, denoiser, x, index, callback)
            if index == 0:
                return p.pred_xstart
            s = index - 1
            if alpha[s] == 0:  # from pure noise to pure noise
                continue
            shrunk = float(sigma[s] / sigma[index])
            kept = float(alpha[s] - alpha[index] * shrunk)  # alpha_s (1 - s_s / s_t)
            euler = shrunk * x + kept * p.pred_xstart
            ahead, _ = predict(diffusion, denoiser, euler, s, None)
            # alpha_s (s_t / s_s - 1) / 2, without a division by an alpha that may be 0
            ratio = float(alpha[s]) / max(float(alpha[index]) * shrunk, TINY)
            weight = min(float(alpha[s]) * (ratio - 1) / 2, kept)
            x = euler + weight * (ahead.pred_xstart - p.pred_xstart)
        return x
