"""Timesteps drawn as often as the bound weighs their error, for training and for estimates."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule


class BoundTimes:
    """t with probability p(t) proportional to `NoiseSchedule.bound_weights`.

    A term of Eq. 5 divided by p(t) is the squared error of the predicted noise, between 0 and about
    1 everywhere, where with t drawn evenly the few t next to the image decide everything.

    Args:
        schedule: of T steps.
        device: of the tensors.
        is_v: the error is that of v, which is 1 / abar times that of the noise.
        even: share of the draws that are even over all t.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        device: torch.device,
        is_v: bool = False,
        even: float = 0.0,
    ) -> None:
        weights = schedule.bound_weights * (schedule.alphas_cumprod if is_v else 1.0)
        largest = weights[np.isfinite(weights)].max()
        # Where the chain ends in pure noise, one weight is infinite (or 0 times infinite).
        weights = np.fmin(weights, largest)
        probability = (1 - even) * weights / weights.sum() + even / len(weights)
        self.probability: Float[Tensor, " T"] = torch.from_numpy(probability).to(device)
        self.cumulative = self.probability.cumsum(0)
        self.cumulative[-1] = 1.0

    def at(self, quantile: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The t at each quantile in (0, 1] of p, counted from t = 0."""
        return torch.searchsorted(self.cumulative, quantile.double())
