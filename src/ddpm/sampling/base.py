"""What every sampler shares: the state shown to a callback, and the walk down the timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, PMeanVariance
from ddpm.errors import check


@dataclass(frozen=True)
class SampleState:
    """What a callback sees: the image at time index `index`, and the x_0 predicted from it."""

    index: int
    timestep: int
    x_t: Tensor
    pred_xstart: Tensor


Callback = Callable[[SampleState], None]
NoiseSource = Callable[[int], Tensor]


def reverse_indices(diffusion: GaussianDiffusion, start: int | None) -> Iterator[int]:
    """Time indices from `start` (T-1 by default) down to 0, both included."""
    last = diffusion.num_timesteps - 1
    start = last if start is None else start
    check(0 <= start <= last, f"the start must lie in 0..{last}, got {start}")
    return iter(range(start, -1, -1))


def predict(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x: Tensor,
    index: int,
    callback: Callback | None,
) -> tuple[PMeanVariance, Tensor]:
    """The reverse step at time `index`, shown to the callback; and the time as a vector."""
    t = torch.full((len(x),), index, device=x.device)
    p = diffusion.p_mean_variance(denoiser, x, t)
    if callback is not None:
        timestep = int(diffusion.schedule.timesteps[index])
        callback(SampleState(index, timestep, x, p.pred_xstart))
    return p, t
