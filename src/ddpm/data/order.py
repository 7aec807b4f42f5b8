"""Which images a step sees: a function of (seed, step), and the batches that follow from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm.data.folder import StreamedImages
from ddpm.data.images import ImageSource
from ddpm.errors import DdpmError
from ddpm.randomness import Randomness


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


class _OneByOne(Dataset[Tensor | DdpmError]):
    """A streamed folder as the data loader's workers want it.

    A broken file is returned, not raised: the loader would bury its sentence in a traceback.
    """

    def __init__(self, source: StreamedImages) -> None:
        self.source = source

    def __getitem__(self, index: int) -> Tensor | DdpmError:
        try:
            return self.source.read(index)
        except DdpmError as error:
            return error


def _stack(images: list[Tensor | DdpmError]) -> Tensor | DdpmError:
    """A batch, or the first error among its images."""
    broken = [image for image in images if isinstance(image, DdpmError)]
    return broken[0] if broken else torch.stack(images)  # type: ignore[arg-type]


def _leave_signals(worker: int) -> None:
    """A scheduler's signal goes to all processes; the run saves, and a worker ends with the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def training_batches(
    source: ImageSource, order: DataOrder, start: int, stop: int, share: slice, workers: int = 4
) -> Iterator[Tensor]:
    """uint8 batches of the steps start..stop-1.

    Args:
        share: the part of each batch that this process works on.
        workers: processes that decode a streamed folder ahead of time.
    """
    if not isinstance(source, StreamedImages):
        for step in range(start, stop):
            yield source[order[step][share]]
        return
    wanted = (order[step][share].tolist() for step in range(start, stop))
    processes = min(workers, os.cpu_count() or 1)
    for batch in DataLoader(
        _OneByOne(source),
        batch_sampler=wanted,
        num_workers=processes,
        collate_fn=_stack,
        worker_init_fn=_leave_signals,
    ):
        if isinstance(batch, DdpmError):
            raise batch
        yield batch
