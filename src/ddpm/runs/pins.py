"""Checkpoints that archives need: runs keep them, and nothing is written over them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ddpm.errors import DdpmError, check
from ddpm.runs.folder import RunFolder, in_runs, name_beside
from ddpm.runtime.atomic import atomically
from ddpm.runtime.paths import exists

log = logging.getLogger("ddpm")


def pinned_by(file: Path) -> RunFolder | None:
    """The run that has a file pinned, under whichever of its names; None if there is none.

    Raises:
        DdpmError: the list of a run cannot be read.
    """
    for path in in_runs(file):
        run = RunFolder(path.parent.parent)
        if path in run.pinned():
            return run
    return None


def may_be_needed(file: Path) -> bool:
    """Whether an archive needs a file, or nobody can say."""
    try:
        return pinned_by(file) is not None
    except DdpmError:
        return True


def keep(file: Path, called: str | None = None) -> str:
    """Have a run keep the checkpoint that an archive is made with, also if none is made in the end:
    another one may need it by then.

    Args:
        file: of a model, in a run or not.
        called: what a reader knows it by; its path by default.

    Returns:
        A sentence that says what must be kept to decode it.

    Raises:
        DdpmError: the checkpoint was removed before.
    """
    places = in_runs(file)
    if not places:
        return f"to decode it, keep {called or file}"
    named = called or (file if file.absolute() in places else places[0])
    try:
        new = [RunFolder(place.parent.parent).pin(place) for place in places]
    except DdpmError as error:
        return f"to decode it, keep {named}, which the run could not be told ({error})"
    check_there(file)
    since = "from now on" if any(new) else "already"
    return f"to decode it, {named} is needed, which the run keeps {since}"


def check_there(file: Path) -> None:
    """Refuse to go on for a model that nobody will have."""
    check(
        exists(file),
        f"{file} was removed meanwhile, which a run does with its older checkpoints; compress "
        "again with a newer one",
    )


def make_way(file: Path) -> None:
    """Before a checkpoint is written: one in its place that an archive may need is kept under
    another name, and its pin with it; a notice names it.

    Raises:
        DdpmError: there is no room for both.
    """
    if not (file.is_file() and may_be_needed(file)):
        return
    aside = name_beside(file, "earlier")
    atomically(aside, lambda partial: shutil.copyfile(file, partial), replace=False)
    RunFolder(file.parent.parent).pin_instead(aside, file.name)
    log.warning("an archive may need what %s was before; it is kept as %s", file, aside)
