"""The batches of a run, decoded ahead by workers where that helps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm.data.images import ImageSource
from ddpm.data.order import DataOrder
from ddpm.data.streamed import StreamedImages
from ddpm.errors import DdpmError


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
