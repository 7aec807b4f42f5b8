"""The batches of a run, read ahead by worker processes where the source allows it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm.data.images import ImageSource, SingleReads
from ddpm.data.order import DataOrder
from ddpm.errors import DdpmError

RESTARTS = 3  # times that killed workers are replaced in one session of a run

log = logging.getLogger("ddpm")


class _OneByOne(Dataset[Tensor | DdpmError]):
    """A source of single reads as the data loader's workers want it.

    An error is returned, not raised: the loader would bury its sentence in a traceback.
    """

    def __init__(self, source: SingleReads) -> None:
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
    # Nothing but the loop may hold the iterator: with it go the worker processes.
    for step, batch in enumerate(_batches(source, order, start, stop, rows, workers), start):
        if isinstance(batch, DdpmError):
            raise batch
        source.format.check_shape(batch, source.name)
        if step == start and batch.numel():  # later ones are not waited for
            source.format.check_levels(int(batch.max()), source.name)
        yield batch


def _batches(
    source: ImageSource, order: DataOrder, start: int, stop: int, rows: slice, workers: int
) -> Iterator[Tensor | DdpmError]:
    """Batches that are indexed when they are asked for, or put together by workers.

    When the system kills a worker (for memory, as a rule) others take its place.
    """
    if not isinstance(source, SingleReads):
        yield from (source[order[step][rows]] for step in range(start, stop))
        return
    step = start
    for left in range(RESTARTS, -1, -1):
        read_ahead = _read_ahead(source, order, step, stop, rows, workers)
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
    source: SingleReads, order: DataOrder, start: int, stop: int, rows: slice, workers: int
) -> Iterator[Tensor | DdpmError]:
    """Batches that workers put together; with the iterator go the workers."""
    before = _child_handler()
    loader = iter(
        DataLoader(
            _OneByOne(source),
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
