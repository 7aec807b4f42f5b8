"""The exponential moving average of the weights, which every evaluation uses."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A copy of a network that follows it: shadow = decay shadow + (1 - decay) weight.

    Only parameters are averaged; buffers are copied as they are. As in the authors' code the
    average starts at the initial weights. Their decay is constant; here it rises to that value, as
    TensorFlow's `num_updates` makes it, so that an average of few steps is not mostly noise.

    Args:
        network: which is copied; the copy is `Ema.network`.
        decay: in the limit, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def decay_at(self, step: int) -> float:
        """The decay of the step after `step` others: min(decay, (1 + step) / (10 + step))."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move one step towards the weights of `network`, after `step` other steps."""
        shadow = [p.detach() for p in self.network.parameters()]
        current = [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(shadow, current, 1 - self.decay_at(step))
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
