"""What a run does for its folder: room, leftovers of killed processes, checkpoints gone bad."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from ddpm.runtime.atomic import check_room, sync_folder
from ddpm.errors import Damaged, DdpmError, check
from ddpm.pretrained import pretrained
from ddpm.runs.checkpoint import load_checkpoint

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ddpm.runtime.atomic import check_writable
from ddpm.runtime.atomic import as_text, check_room, free_bytes

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


KEEP = 2  # checkpoints of a run that are kept


def checkpoint_path(run: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of `step`."""
    return run / "checkpoints" / f"step-{step:08d}.safetensors"


def checkpoints(run: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def find_checkpoint(path: Path) -> Path:
    """The file that `path` means: itself, the newest checkpoint of a run folder, or a model that
    comes with the package.

    Raises:
        DdpmError: there is no such file, folder or model, or no checkpoint in the folder.
    """
    if path.is_file():
        return path
    found = checkpoints(path)
    if not found and str(path) in pretrained():
        return pretrained()[str(path)]
    check(
        path.exists(),
        f"{path} does not exist; train a model first (ddpm train digits), or take one that comes "
        "with the package (ddpm models)",
    )
    check(len(found) > 0, f"{path} holds no checkpoint; is it the folder of a training run?")
    return found[-1]


def load_newest(path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The file that `path` means (see `find_checkpoint`) with its tensors and metadata.

    Of a run folder it is the newest checkpoint that is whole; a notice names the damaged ones.

    Raises:
        Damaged: the named file, or every checkpoint of the run, is damaged.
        DdpmError: there is none.
    """
    damaged: list[Damaged] = []
    for file in reversed(checkpoints(path) or [find_checkpoint(path)]):
        try:
            tensors, metadata = load_checkpoint(file)
        except Damaged as error:
            damaged.append(error)
            continue
        for problem in damaged:
            log.warning("%s; %s is used instead", str(problem).split(";")[0], file)
        return file, tensors, metadata
    raise damaged[0]


def rotate(run: Path, written: Path, keep: int = KEEP) -> None:
    """Remove all but `keep` checkpoints of a run: the one just `written` and those before it.

    Newer files go too: the run went on from an older one because they were damaged, and counted as
    the newest they would push out the good ones.
    """
    kept = [path for path in checkpoints(run) if path <= written][-keep:]
    for path in checkpoints(run):
        if path not in kept:
            path.unlink()
            errors_path(path).unlink(missing_ok=True)


def errors_path(checkpoint: Path) -> Path:
    """Where the errors measured of a checkpoint's model are kept (see `ddpm.likelihood.denoising_error`)."""
    return checkpoint.with_name(f"errors-{checkpoint.name}")
