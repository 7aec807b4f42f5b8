"""What a run does for its folder: room, leftovers of killed processes, checkpoints gone bad."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ddpm.checkpoint import KEEP, check_writable, checkpoint_path, checkpoints
from ddpm.disk import as_text, check_room, free_bytes

log = logging.getLogger("ddpm")


def prepare_folder(run: Path, size: int) -> None:
    """Make sure that a run can save before it learns anything worth saving.

    Args:
        run: its folder, made if need be.
        size: bytes of a checkpoint.

    Raises:
        DdpmError: checkpoints cannot be written there, or not even one fits. That there is room
            for one but not for all that will be kept is logged.
    """
    clear_leftovers(run)
    folder = run / "checkpoints"
    check_writable(folder)
    check_room(folder, size)
    # While the newest is written, those that are kept are still there.
    wanted = size * (KEEP + 1 - min(len(checkpoints(run)), KEEP))
    free = free_bytes(folder)
    if free < wanted:
        log.warning(
            "the disk will not last: checkpoints will take %s more in %s, where %s are free",
            as_text(wanted),
            folder,
            as_text(free),
        )


def clear_leftovers(run: Path) -> None:
    """Remove what killed processes left half-written in `run`; what a live one writes stays."""
    for path in run.rglob(".*.partial"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and not _writes_on(int(process)):
            path.unlink(missing_ok=True)


def _writes_on(process: int) -> bool:
    """Whether another process of this number lives; our own has not begun to write."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def saved_on_errors(batches: Iterable[Tensor], save: Callable[[], None]) -> Iterator[Tensor]:
    """The batches; if one cannot be had, what was learned so far is saved before the error goes on.

    A picture that broke on step 4,999 must not cost 4,999 steps.
    """
    try:
        yield from batches
    except Exception:
        save()
        raise


def set_aside(run: Path, first: int) -> None:
    """Rename the checkpoints of step `first` and later, so that nobody goes on from them.

    They may hold weights that had gone bad without showing it yet.
    """
    for path in checkpoints(run):
        if path >= checkpoint_path(run, first):
            path.rename(path.with_name(f"diverged-{path.name}"))


def way_back(run: Path) -> str:
    """What to do about a run that diverged."""
    found = checkpoints(run)
    if not found:
        return "no checkpoint is left from before; start again with a lower --training.lr"
    return (
        f"{found[-1]} is kept from before: resume with a lower --training.lr or "
        "--training.precision fp32"
    )
