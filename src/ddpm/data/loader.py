"""The batches of a run, read ahead by worker processes where the source allows it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm.data.images import ImageSource, LabelledReads, SingleReads
from ddpm.data.order import DataOrder
from ddpm.errors import DdpmError

RESTARTS = 3  # times that killed workers are replaced in one session of a run

log = logging.getLogger("ddpm")


class Batch(NamedTuple):
    """What a step is trained on.

    Args:
        images: uint8, [b, c, h, w].
        labels: their classes, long, [b]; None where they are not asked for.
    """

    images: Tensor
    labels: Tensor | None


_Read = tuple[Tensor, int | None]


class _OneByOne(Dataset[_Read | DdpmError]):
    """A source of single reads as the data loader's workers want it.

    An error is returned, not raised: the loader would bury its sentence in a traceback.
    """

    def __init__(self, source: SingleReads, labels: Tensor | None) -> None:
        self.source, self.labels = source, labels

    def __getitem__(self, index: int) -> _Read | DdpmError:
        try:
            if self.labels is None:
                return self.source.read(index), None
            if isinstance(self.source, LabelledReads):  # which may show another image
                return self.source.read_labelled(index)
            return self.source.read(index), int(self.labels[index])
        except DdpmError as error:
            return error


def _stack(reads: list[_Read | DdpmError]) -> Batch | DdpmError:
    """A batch, or the first error among its images."""
    good: list[_Read] = []
    for read in reads:
        if isinstance(read, DdpmError):
            return read
        good.append(read)
    labels = [label for _, label in good if label is not None]
    images = torch.stack([image for image, _ in good])
    return Batch(images, torch.tensor(labels) if labels else None)


def _ignore_signals(worker: int) -> None:
    """A signal goes to all processes; the loop still wants batches, and workers end with the run.

    PyTorch itself gives each worker a single thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def training_batches(
    source: ImageSource, order: DataOrder, start: int, stop: int, rows: slice, workers: int = 4
) -> Iterator[Tensor]:
    """uint8 batches of the steps start..stop-1; of single reads on the CPU, pinned for CUDA.

    Args:
        source: the images.
        order: which of them each step sees.
        start, stop: steps.
        rows: of each batch that this process works on.
        workers: processes that read single images ahead of time, two batches each; no more than
            there are cores.

    Raises:
        DdpmError: an image cannot be read, or the source gives what its format does not say.
    """
    for batch in labelled_batches(source, None, order, start, stop, rows, workers):
        yield batch.images


def labelled_batches(
    source: ImageSource,
    labels: Tensor | None,
    order: DataOrder,
    start: int,
    stop: int,
    rows: slice,
    workers: int = 4,
) -> Iterator[Batch]:
    """The same batches together with the labels of their images.

    Args:
        source: the images.
        labels: of all of them, long, [n], on the CPU; None to do without.
        order, start, stop, rows, workers: see `training_batches`.

    Raises:
        DdpmError: see `training_batches`.
    """
    # Nothing but the loop may hold the iterator: with it go the worker processes.
    for step, batch in enumerate(
        _batches(source, labels, order, start, stop, rows, workers), start
    ):
        if isinstance(batch, DdpmError):
            raise batch
        source.format.check_shape(batch.images, source.name)
        if step == start and batch.images.numel():  # later ones are not waited for
            source.format.check_levels(int(batch.images.max()), source.name)
        yield batch


def _batches(
    source: ImageSource,
    labels: Tensor | None,
    order: DataOrder,
    start: int,
    stop: int,
    rows: slice,
    workers: int,
) -> Iterator[Batch | DdpmError]:
    """Batches that are indexed when they are asked for, or put together by workers.

    When the system kills a worker (for memory, as a rule) others take its place.
    """
    if not isinstance(source, SingleReads):
        for indices in (order[step][rows] for step in range(start, stop)):
            yield Batch(source[indices], None if labels is None else labels[indices])
        return
    step = start
    for left in range(RESTARTS, -1, -1):
        read_ahead = _read_ahead(source, labels, order, step, stop, rows, workers)
        try:
            for batch in read_ahead:
                yield batch
                step += 1
            return
        except (RuntimeError, ConnectionError, EOFError) as error:
            # A worker's own error says so; these are of its end.
            own = isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error)
            if own or "Caught " in str(error):
                raise
            del read_ahead
            if left == 0:
                raise DdpmError(
                    f"the processes that read {source.name} are killed again and again; the "
                    "machine may be out of memory: free some and resume"
                ) from error
            log.warning("a process that reads %s was killed; others take its place", source.name)


def _read_ahead(
    source: SingleReads,
    labels: Tensor | None,
    order: DataOrder,
    start: int,
    stop: int,
    rows: slice,
    workers: int,
) -> Iterator[Batch | DdpmError]:
    """Batches that workers put together; with the iterator go the workers."""
    before = _child_handler()
    loader = iter(
        DataLoader(
            _OneByOne(source, labels),
            batch_sampler=(order[step][rows].tolist() for step in range(start, stop)),
            num_workers=min(workers, os.cpu_count() or 1),
            collate_fn=_stack,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_signals,
        )
    )
    # PyTorch would raise a worker's death anywhere in this process, even inside a step.
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return loader


def _child_handler() -> Any:
    """What is done now when a child process ends; None where that cannot be set."""
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
