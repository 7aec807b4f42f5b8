"""What `ddpm.Progress` looks like: a bar that fits the terminal, or a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from ddpm.runtime import parallel
from ddpm.runtime.progress import Progress

EVALUATIONS = ("bits/dim", "denoising error", "compressing", "decompressing")
UNITS = {"training": " steps", "sampling": " network calls", "inverting": " network calls"}
UNITS |= dict.fromkeys(EVALUATIONS, " evaluations")
LOG_EVERY = 60.0  # seconds between two lines where there is no terminal
BAR = 20  # characters


def describe(
    label: str, done: float, total: float | None, speed: float | None, note: str, width: int
) -> str:
    """One line about some work, in at most `width` characters.

    What does not fit goes, in this order: the bar, the note, the rate, the label, the step count.
    The remaining time goes last.
    """
    whole = done >= (total or 0)
    left = None if speed is None or total is None else max(total - done, 0) / speed
    count = f"{done:,.0f}" if total is None else f"{done:,.0f}/{total:,.0f}"
    remaining = "done" if whole else "-:--:-- left" if left is None else f"{_clock(left)} left"
    rate = "" if speed is None else f"{speed:,.1f}{UNITS.get(label, '')}/s"
    filled = round(BAR * min(done / total, 1)) if total else 0
    parts = [
        (5, label),
        (1, f"[{'#' * filled}{'.' * (BAR - filled)}]"),
        (6, count),
        (3, rate),
        (2, note),
        (7, remaining),
    ]
    for least in range(1, 8):
        line = "  ".join(text for rank, text in parts if text and rank >= least)
        if cell_len(line) <= width:
            return line
    return remaining[: max(width, 0)]


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(min(seconds, 1e8))))


class Line(ProgressColumn):
    """All there is to say of a task."""

    def __init__(self, width: Callable[[], int]) -> None:
        super().__init__(Column(no_wrap=True))
        self.width = width

    def render(self, task: Task) -> Text:
        """See `describe`."""
        speed = task.finished_speed or task.speed
        note = str(task.fields.get("note", "")).strip()
        width = self.width()
        return Text(
            describe(task.description, task.completed, task.total, speed, note, width),
            overflow="crop",
        )


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for whatever is being done inside; a new label begins a new bar.

    Where the output is no terminal, a plain line a minute; of several processes one tells.
    """
    if sys.stderr is None or not parallel.is_main():
        yield lambda done, total, label: None
        return
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines()
        return
    with bars(console) as drawn:
        yield follow(drawn)


def bars(console: Console | None = None) -> Bars:
    """Bars of one line each; tasks carry a field `note` for the rest."""
    terminal = console or Console(stderr=True)
    return Bars(
        Line(lambda: terminal.width - 1),
        console=terminal,
        refresh_per_second=1,  # drawing takes time from the work where cores are few
    )


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


class Lines:
    """A `Progress` for logs and pipes: a line a minute, and one at the end of what took longer.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock, self.name = clock or time.monotonic, ""
        self.begun = self.said = 0.0
        self.first, self.spoke = 0, False

    def __call__(self, done: int, total: int, label: str) -> None:
        """See `Progress`."""
        now, (name, _, note) = self.clock(), label.partition(": ")
        if name != self.name or done < self.first:
            self.name, self.begun, self.said, self.first, self.spoke = name, now, now, done, False
        finished = done >= total and self.spoke
        if now - self.said < LOG_EVERY and not finished:
            return
        speed = (done - self.first) / (now - self.begun) if now > self.begun else None
        line = describe(name, done, total, speed or None, note.strip(), sys.maxsize)
        print(line, file=sys.stderr, flush=True)
        self.said, self.spoke = now, not finished


def about(seconds: float) -> str:
    """A duration for people."""
    minutes = round(seconds / 60)
    if seconds < 1:
        return "less than a second"
    if round(seconds) < 60:
        return f"about {seconds:.0f} s"
    if minutes < 60:
        return f"about {minutes} min"
    if minutes < 48 * 60:
        return f"about {minutes // 60} h {minutes % 60} min"
    return f"about {seconds / 86400:.1f} days"
