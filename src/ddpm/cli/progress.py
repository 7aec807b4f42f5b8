"""Progress bars: what `ddpm.Progress` looks like in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from ddpm.runtime.progress import Progress

EVALUATIONS = ("bits/dim", "denoising error", "compressing", "decompressing")
UNITS = {"training": " steps", "sampling": " network calls"} | dict.fromkeys(
    EVALUATIONS, " evaluations"
)


class RateColumn(ProgressColumn):
    """How many are done a second."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Empty until there is something to measure."""
        speed = task.finished_speed or task.speed
        unit = UNITS.get(task.description, "")
        return Text("" if speed is None else f"{speed:,.1f}{unit}/s")


def bars() -> Bars:
    """Bars with a rate and the remaining time; tasks carry a field `note` for the rest."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        refresh_per_second=1,  # drawing takes time from the work where cores are few
    )


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for whatever is being done inside; a new label begins a new bar."""
    with bars() as drawn:
        yield follow(drawn)


def follow(drawn: Bars) -> Progress:
    """A `Progress` that moves bars: one for each label, without the detail behind its colon."""
    tasks: dict[str, Task] = {}

    def progress(done: int, total: int, label: str) -> None:
        name, _, note = label.partition(": ")
        task = tasks.get(name)
        if task is None or done < task.completed:  # a new thing of the same name starts again
            if task is not None:
                drawn.remove_task(task.id)
            number = drawn.add_task(name, total=total, completed=done, note=note)
            tasks[name] = next(task for task in drawn.tasks if task.id == number)
        else:
            drawn.update(task.id, completed=done, total=total, note=note)

    return progress
