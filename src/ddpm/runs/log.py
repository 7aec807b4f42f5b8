"""What a run leaves behind while it goes: stats.jsonl, curves, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from ddpm.runtime.atomic import atomically
from ddpm.runtime.atomic import check_room

STATS = "stats.jsonl"
ROOM = 1 << 20  # bytes left on a disk when the log refuses to grow, so that it can still be closed










@runtime_checkable
class Curves(Protocol):
    """Where curves go besides: a run of Weights & Biases, as `wandb.init` returns it."""

    def log(self, data: dict[str, float]) -> None:
        """Take one point of each curve."""

    def finish(self) -> None:
        """Send what is left."""


class RunLog:
    """Appends measurements of a step to stats.jsonl, TensorBoard and, if given, `curves`."""

    def __init__(self, run: Path, from_step: int, curves: Curves | None = None) -> None:
        self.curves = curves
        self.path = run / STATS
        kept = [line for line in read_stats(run) if line["step"] <= from_step]
        # What a resumed run will measure again is dropped.
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomically(self.path, lambda partial: partial.write_text(text))
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=from_step)

    def write(self, step: int, **values: float) -> None:
        """One line, one point a curve.

        Raises:
            DdpmError: the disk is all but full.
        """
        check_room(self.path, ROOM)
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        if self.curves is not None:
            self.curves.log({"step": step, **values})

    def close(self) -> None:
        """Flush everything to disk."""
        self.file.close()
        self.board.close()
        if self.curves is not None:
            self.curves.finish()


def read_stats(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's stats.jsonl, oldest first; what a crash spoilt is left out.

    Every line has a `step`; a reader must expect any other key to be missing.
    """
    path = run / STATS
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            found.append(values)
    return found
