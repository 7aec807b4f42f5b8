"""Progress bars of the command line."""

from __future__ import annotations

from collections.abc import Callable

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


class RateColumn(ProgressColumn):
    """How many of `unit` are done a second."""

    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Empty until there is something to measure."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {self.unit}/s")


def progress_bar(unit: str) -> Progress:
    """A bar with a rate and the remaining time; tasks carry a field `note` for the rest."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(unit),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        refresh_per_second=1,  # drawing takes time from the work where cores are few
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
