"""What a run leaves behind while it goes: stats.jsonl, TensorBoard curves, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

from ddpm.checkpoint import atomically

STATS = "stats.jsonl"


def progress_bar(unit: str) -> Progress:
    """A bar with a rate and the remaining time; tasks carry a field `note` for the rest."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )


def counting_bar(bar: Progress, name: str) -> Callable[[int, int], None]:
    """A callback (done now, total) that moves a task of the bar."""
    task = bar.add_task(name, total=None, note="")

    def advance(done: int, total: int) -> None:
        bar.update(task, advance=done, total=total)

    return advance


def naming_bar(bar: Progress, name: str) -> Callable[[str, int], None]:
    """A callback (what begins now, how many parts there are) that moves a task of the bar."""
    task = bar.add_task(name, total=None, note="")

    def begin(part: str, total: int) -> None:
        bar.update(task, advance=1, total=total, note=part)

    return begin


class RunLog:
    """Appends measurements of a step to stats.jsonl and TensorBoard."""

    def __init__(self, run: Path, from_step: int) -> None:
        self.path = run / STATS
        kept = [line for line in read_stats(run) if line["step"] <= from_step]
        # What a resumed run will measure again is dropped.
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomically(self.path, lambda partial: partial.write_text(text))
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=from_step)

    def write(self, step: int, **values: float) -> None:
        """One line, one point a curve."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush everything to disk."""
        self.file.close()
        self.board.close()


def read_stats(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's stats.jsonl, oldest first; a line cut off by a crash is left out."""
    path = run / STATS
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
