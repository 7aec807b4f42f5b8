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

from ddpm.data.images import ImageSource
from ddpm.data.streamed import StreamedImages
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
    """A streamed set as the data loader's workers want it.

    An error is returned, not raised: the loader would bury its sentence in a traceback.
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


def _settle(worker: int) -> None:
    """A signal goes to all processes; the loop still wants batches, and workers end with the run.

    PyTorch itself gives each worker a single thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def training_batches(
    source: ImageSource, order: DataOrder, start: int, stop: int, share: slice, workers: int = 4
) -> Iterator[Tensor]:
    """uint8 batches of the steps start..stop-1; of a streamed set on the CPU, pinned for CUDA.

    Args:
        share: the part of each batch that this process works on.
        workers: processes that decode a streamed set ahead of time, two batches each; no more
            than there are cores.
    """
    if not isinstance(source, StreamedImages):
        for step in range(start, stop):
            yield source[order[step][share]]
        return
    for batch in DataLoader(
        _OneByOne(source),
        batch_sampler=(order[step][share].tolist() for step in range(start, stop)),
        num_workers=min(workers, os.cpu_count() or 1),
        collate_fn=_stack,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_settle,
    ):
        if isinstance(batch, DdpmError):
            raise batch
        yield batch
