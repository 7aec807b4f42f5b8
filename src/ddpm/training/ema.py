"""The exponential moving average of the weights, which every evaluation uses."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """A copy of a network that follows it: shadow = decay shadow + (1 - decay) weight.

    Only parameters are averaged; buffers are copied as they are. As in the authors' code the
    average starts at the initial weights and the decay is constant.

    Args:
        network: which is copied; the copy is `Ema.network`.
        decay: in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move one step towards the weights of `network`."""
        shadow = [p.detach() for p in self.network.parameters()]
        current = [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(shadow, current, 1 - self.decay)
        for ours, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
