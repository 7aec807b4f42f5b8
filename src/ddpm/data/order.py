"""Which images a step sees: a function of (seed, step), and the batches that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from ddpm.runtime.randomness import Randomness


@dataclass
class DataOrder:
    """Every epoch visits all images once, in an order of its own.

    Args:
        length: number of images.
        batch_size: images a step.
        seed: decides the orders.
    """

    length: int
    batch_size: int
    seed: int
    _epoch: tuple[int, Tensor] = field(default=(-1, torch.empty(0)), repr=False)

    def permutation(self, epoch: int) -> Int[Tensor, " n"]:
        """The order of one epoch; the latest is remembered."""
        if self._epoch[0] != epoch:
            self._epoch = epoch, Randomness(self.seed, "order").permutation(self.length, epoch)
        return self._epoch[1]

    def __getitem__(self, step: int) -> Int[Tensor, " b"]:
        """Indices of the images of batch `step`."""
        first, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while first < stop:
            epoch, offset = divmod(first, self.length)
            part = self.permutation(epoch)[offset : offset + stop - first]
            parts.append(part)
            first += len(part)
        return torch.cat(parts)
