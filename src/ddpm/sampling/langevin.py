"""Annealed Langevin dynamics (Song & Ermon 2019) with the network as a score (paper, s. 3.2).

The noise prediction is a score at every noise level: score = -eps_theta / sqrt(1 - abar_t).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, refuse_pure_noise, reverse_indices


@register("sampler", "langevin")
@dataclass(frozen=True)
class Langevin:
    """A few Langevin steps at every noise level, from the noisiest to the cleanest.

    In the coordinates y = x_t / sqrt(abar_t) the level is y = x_0 + s_t eps with
    s_t = sqrt((1 - abar_t) / abar_t), its score is -eps_theta / s_t, and a step of size
    a = step_size s_t^2 is y <- y + a/2 score + sqrt(a) z.

    The result is the x_0 predicted at the end of the cleanest level.

    Args:
        step_size: in units of each level's noise variance; in (0, 1].
        corrections: Langevin steps, and so network calls, a level.

    Raises:
        DdpmError: one of them is out of range.
    """

    step_size: float = 0.2
    corrections: int = 5

    def __post_init__(self) -> None:
        check(0 < self.step_size <= 1, f"step_size must lie in (0, 1], got {self.step_size:g}")
        check(self.corrections >= 1, f"corrections must be at least 1, got {self.corrections}")

    @property
    def calls_per_step(self) -> int:
        """Network calls a level."""
        return self.corrections

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
        refuse_pure_noise(diffusion)
        scale = diffusion.schedule.sqrt_alphas_cumprod
        level = diffusion.schedule.sqrt_recipm1_alphas_cumprod
        total, result = diffusion.num_timesteps, x
        for index in reverse_indices(diffusion, start):
            for i in range(self.corrections):
                p, t = predict(diffusion, denoiser, x, index, callback if i == 0 else None)
                result = p.pred_xstart
                epsilon = diffusion.epsilon_from_xstart(p.pred_xstart, x, t)
                y = x / float(scale[index]) - 0.5 * self.step_size * float(level[index]) * epsilon
                # Its own noise for every correction: numbers above total + 1 are used by no step.
                z = noise(index + (i + 1) * (total + 1))
                y = y + self.step_size**0.5 * float(level[index]) * z
                x = y * float(scale[index])
            if index > 0:
                x = x * float(scale[index - 1] / scale[index])
        return result
