"""Annealed Langevin dynamics (Song & Ermon 2019) with the network as a score (paper, s. 3.2).

The noise prediction is a score at every noise level: score = -eps_theta / sqrt(1 - abar_t).
"""

from __future__ import annotations

from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices


def langevin(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x: Tensor,
    noise: NoiseSource,
    *,
    start: int | None = None,
    callback: Callback | None = None,
    step_size: float = 0.2,
    corrections: int = 5,
) -> Tensor:
    """A few Langevin steps at every noise level, from the noisiest to the cleanest.

    In the coordinates y = x_t / sqrt(abar_t) the level is y = x_0 + s_t eps with
    s_t = sqrt((1 - abar_t) / abar_t), its score is -eps_theta / s_t, and a step of size
    a = step_size s_t^2 is y <- y + a/2 score + sqrt(a) z.

    Args:
        step_size: in units of each level's noise variance; in (0, 1].
        corrections: Langevin steps, and so network calls, a level.

    Returns:
        The x_0 predicted at the end of the cleanest level.

    See `ddpm.sampling` for the other arguments.
    """
    check(0 < step_size <= 1, f"step_size must lie in (0, 1], got {step_size:g}")
    check(corrections >= 1, f"corrections must be at least 1, got {corrections}")
    scale = diffusion.schedule.sqrt_alphas_cumprod
    level = diffusion.schedule.sqrt_recipm1_alphas_cumprod
    total, result = diffusion.num_timesteps, x
    for index in reverse_indices(diffusion, start):
        for i in range(corrections):
            p, t = predict(diffusion, denoiser, x, index, callback if i == 0 else None)
            result = p.pred_xstart
            epsilon = diffusion.epsilon_from_xstart(p.pred_xstart, x, t)
            y = x / float(scale[index]) - 0.5 * step_size * float(level[index]) * epsilon
            # Its own noise for every correction: numbers above total + 1 are used by no step.
            z = noise(index + (i + 1) * (total + 1))
            y = y + step_size**0.5 * float(level[index]) * z
            x = y * float(scale[index])
        if index > 0:
            x = x * float(scale[index - 1] / scale[index])
    return result
