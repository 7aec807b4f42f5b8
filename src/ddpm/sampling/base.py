"""What every sampler shares: its signature, the state shown to a callback, the way down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, PMeanVariance
from ddpm.errors import check

LEAST_SIGNAL = 1e-12  # abar_T whose root float32 can still be divided by


@dataclass(frozen=True)
class SampleState:
    """What a callback sees at a step.

    Args:
        index: time index in the chain, from K-1 down to 0.
        timestep: of the whole chain, 0..T-1.
        x_t: [b, ...].
        pred_xstart: the x_0 predicted from it, [b, ...].
        first: the number of the batch's first image among all that are drawn.
    """

    index: int
    timestep: int
    x_t: Tensor
    pred_xstart: Tensor
    first: int = 0


Callback = Callable[[SampleState], None]
NoiseSource = Callable[[int], Tensor]


@runtime_checkable
class Sampler(Protocol):
    """Any function of this signature; what is special about one is set when it is made.

    A sampler that calls the network more than once a step may say so in an attribute
    `calls_per_step`, for progress bars. One that draws x_{t-1} by `diffusion.p_sample`, and so in
    whatever coordinates the variance is in, says so in an attribute `knows_rotation`; others are
    not given the variance 'spectral'.
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
        """Walk the reverse chain.

        Args:
            diffusion: the chain; fewer steps come from `diffusion.respace(...)`.
            denoiser: the network.
            x: the image at time index `start`, [b, c, h, w]; standard normal noise when the chain
                is walked from its beginning.
            noise: noise(i) is standard normal noise for the step that leaves time index i.
            start: the time index of x, K-1 by default; that step is taken too.
            callback: called once a step, before the step is taken.

        Returns:
            x_0, not clipped.
        """
        ...


def reverse_indices(diffusion: GaussianDiffusion, start: int | None) -> Iterator[int]:
    """Time indices from `start` (T-1 by default) down to 0, both included."""
    last = diffusion.num_timesteps - 1
    start = last if start is None else start
    check(0 <= start <= last, f"the start must lie in 0..{last}, got {start}")
    return iter(range(start, -1, -1))


def refuse_pure_noise(diffusion: GaussianDiffusion) -> None:
    """For samplers that divide by sqrt(abar_T).

    Raises:
        DdpmError: it is all but 0.
    """
    check(
        bool(diffusion.schedule.alphas_cumprod[-1] > LEAST_SIGNAL),
        "this schedule ends in pure noise, where this sampler is not defined; use ancestral or "
        "ddim",
    )


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
