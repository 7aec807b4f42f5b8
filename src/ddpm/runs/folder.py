"""The folder of a training run: what lies where, and what a run does to keep it in order."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.errors import Damaged, DdpmError, check
from ddpm.pretrained import pretrained
from ddpm.runs import format1
from ddpm.runs.checkpoint import Tensors, load_checkpoint
from ddpm.runtime.atomic import (
    check_free_space,
    format_bytes,
    free_bytes,
    make_folder,
    sync_folder,
)
from ddpm.runtime.paths import exists

CHECKPOINT = re.compile(r"step-\d+\.safetensors")
# What a run's checkpoints are called: as written, put aside, or measured beside a pinned one.
OURS = re.compile(r"((diverged|earlier|measured)-(\d+-)?)?step-.*")
KEEP = 2  # checkpoints of a run that are kept
MOST_LINKS = 40  # one behind the other, as Linux has it

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class RunFolder:
    """The one place that knows where a run keeps its files.

    Args:
        path: the folder, which need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Every setting, as the run was last started."""
        return self.path / "config.json"

    @property
    def stats(self) -> Path:
        """The curves, a line of JSON each time they are logged."""
        return self.path / "stats.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same curves for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def pins(self) -> Path:
        """Names of the checkpoints that archives need, a line each."""
        return self.path / "pinned.txt"

    @property
    def wandb_id(self) -> Path:
        """Names the run in Weights & Biases."""
        return self.path / "wandb-id.txt"

    @staticmethod
    def of(checkpoint: Path) -> RunFolder | None:
        """The run that a checkpoint, or where its links lead, belongs to; None for other files."""
        found = in_runs(checkpoint)
        return RunFolder(found[0].parent.parent) if found else None

    def pinned(self) -> list[Path]:
        """Checkpoints that are kept for ever because archives need them.

        Raises:
            DdpmError: their list cannot be read.
        """
        try:
            text = self.pins.read_bytes().decode("utf-8-sig") if self.pins.is_file() else ""
            if "\0" in text:
                raise ValueError
        except OSError as error:
            raise DdpmError(f"cannot read {self.pins} ({error.strerror})") from error
        except ValueError as error:
            raise DdpmError(
                f"{self.pins}, which lists the checkpoints that archives need, is not UTF-8; save "
                "it as UTF-8"
            ) from error
        names = [line.strip() for line in text.splitlines()]
        return [self.checkpoint(0).with_name(name) for name in dict.fromkeys(names) if name]

    def pin(self, checkpoint: Path) -> bool:
        """Keep a checkpoint for ever; whether it was not kept before.

        A line is added and all others stay where they are, so that several processes can do it.

        Raises:
            DdpmError: that cannot be written down.
        """
        if checkpoint.name in {path.name for path in self.pinned()}:
            return False
        try:
            with self.pins.open("ab+") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                unended = file.read(1) not in (b"", b"\n")  # an editor may leave it so
                file.write(b"\n" * unended + os.fsencode(checkpoint.name) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.path)
        except OSError as error:
            raise DdpmError(f"cannot write {self.pins} ({error.strerror})") from error
        return True

    def pin_instead(self, renamed: Path, name: str) -> None:
        """Have the pin of a name go with its checkpoint; spaces take its place, so that no other
        line moves. If that cannot be written down, a notice says so."""
        word = rb"(?<![\w.-])" + re.escape(os.fsencode(name)) + rb"(?![\w.-])"
        try:
            self.pin(renamed)
            with self.pins.open("rb+") as file:
                for found in re.finditer(word, file.read()):
                    file.seek(found.start())
                    file.write(b" " * len(found[0]))
        except (DdpmError, OSError) as error:
            log.warning("an archive needs %s, which the run could not be told (%s)", renamed, error)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of `step` is kept."""
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def sample_grid(self, step: int) -> Path:
        """Where the grid of samples drawn at `step` is kept."""
        return self.path / "samples" / f"step-{step:08d}.png"

    def checkpoints(self) -> list[Path]:
        """All checkpoints, oldest first."""
        folder = self.checkpoint(0).parent
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise DdpmError(f"cannot read {folder} ({error.strerror})") from error
        return sorted(folder / name for name in names if CHECKPOINT.fullmatch(name))

    def prepare(self, size: int) -> None:
        """Make sure that the run can save before it learns anything worth saving.

        Args:
            size: bytes of a checkpoint.

        Raises:
            DdpmError: checkpoints cannot be written there, or not even one fits. That there is
                room for one but not for all that will be kept is logged.
        """
        self.clear_partial_files()
        folder = self.checkpoint(0).parent
        make_folder(folder)
        check_free_space(folder, size)
        # While the newest is written, those that are kept are still there.
        wanted = size * (KEEP + 1 - min(len(self.checkpoints()), KEEP))
        free = free_bytes(folder)
        if free < wanted:
            log.warning(
                "not enough disk space for the whole run: checkpoints still need %s in %s, where "
                "%s are free",
                format_bytes(wanted),
                folder,
                format_bytes(free),
            )

    def clear_partial_files(self) -> None:
        """Remove what killed processes left half-written; what a live one is writing stays."""
        for path in self.path.rglob(".*.partial"):
            process = path.name.split(".")[-2]
            if process.isdecimal() and not is_alive(int(process)):
                path.unlink(missing_ok=True)

    def rotate(self, written: Path) -> None:
        """Remove all but `KEEP` checkpoints, and those that are pinned: the one just `written` and
        those before it.

        Newer files go too: the run went on from an older one because they were damaged, and
        counted as the newest they would push out the good ones. Where it is not known which are
        pinned, a notice says so and all stay.
        """
        kept = [path for path in self.checkpoints() if path <= written][-KEEP:]
        try:
            for path in self.checkpoints():
                if path not in kept + self.pinned():  # read anew: a `compress` may have pinned it
                    path.unlink()
                    format1.beside(path).unlink(missing_ok=True)
        except DdpmError as error:
            log.warning("%s; until then no checkpoint is removed", error)

    def quarantine(self, first: int) -> None:
        """Rename the checkpoints of step `first` and later, so that nobody goes on from them.

        They may hold weights that had gone bad without showing it yet. Pins go with them.
        """
        try:
            pinned = self.pinned()
        except DdpmError as error:
            log.warning("%s", error)
            pinned = []
        for path in self.checkpoints():
            if path >= self.checkpoint(first):
                renamed = name_beside(path, "diverged")
                path.rename(renamed)
                if path in pinned:
                    self.pin_instead(renamed, path.name)

    def recovery_hint(self) -> str:
        """What to do about a run that diverged."""
        found = self.checkpoints()
        if not found:
            return "no checkpoint is left from before; start again with a lower training.lr"
        return (
            f"{found[-1]} is kept from before: resume with a lower training.lr, or with "
            "training.precision fp32"
        )


def in_runs(file: Path) -> list[Path]:
    """The checkpoints of runs that a file is, by its own name or by those that its links lead to;
    the first one is the closest."""
    paths = [file.absolute()]
    while paths[-1].is_symlink() and len(paths) < MOST_LINKS:
        paths.append(paths[-1].parent / paths[-1].readlink())
    paths.append(file.resolve())
    return [
        path
        for path in dict.fromkeys(paths)
        if OURS.fullmatch(path.name)
        and path.parent == RunFolder(path.parent.parent).checkpoint(0).parent
    ]


def name_beside(file: Path, word: str) -> Path:
    """A free name in the folder of a checkpoint, of which `word` is the beginning."""
    found, number = file.with_name(f"{word}-{file.name}"), 1
    while exists(found):
        number += 1
        found = file.with_name(f"{word}-{number}-{file.name}")
    return found


def is_alive(process: int) -> bool:
    """Whether another process of this number lives; our own has not begun to write."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # where signal 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find_checkpoint(path: Path) -> Path:
    """The file that `path` means: itself, the newest checkpoint of a run folder, or a model that
    comes with the package.

    Raises:
        DdpmError: there is no such file, folder or model, or no checkpoint in the folder.
    """
    there = exists(path)
    if there and not path.is_dir():
        return path
    found = RunFolder(path).checkpoints()
    if not found and str(path) in pretrained():
        return pretrained()[str(path)]
    check(
        there,
        f"{path} does not exist; give the folder of a run, a checkpoint, or a model that comes "
        f"with the package ({', '.join(pretrained())}); `ddpm import` makes a run of one of the "
        "Hugging Face hub",
    )
    check(len(found) > 0, f"{path} holds no checkpoint; is it the folder of a training run?")
    return found[-1]


def load_newest(path: Path, training: bool = False) -> tuple[Path, Tensors, dict[str, Any]]:
    """The file that `path` means (see `find_checkpoint`) with its tensors and metadata.

    Of a run folder it is the newest checkpoint that is whole; a notice names the damaged ones.

    Args:
        path: a file, a run's folder, or the name of a model that comes with the package.
        training: read what only training needs, too.

    Raises:
        Damaged: the named file, or every checkpoint of the run, is damaged.
        DdpmError: there is none.
    """
    damaged: list[Damaged] = []
    for file in reversed(RunFolder(path).checkpoints() or [find_checkpoint(path)]):
        try:
            tensors, metadata = load_checkpoint(file, training)
        except Damaged as error:
            damaged.append(error)
            continue
        for problem in damaged:
            log.warning("%s; %s is used instead", str(problem).split(";")[0], file)
        return file, tensors, metadata
    raise damaged[0]
