"""`ddpm watch RUN`: the progress of a training run, until it is complete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from ddpm.cli.outcome import is_document, tell
from ddpm.cli.parse import parse, positional
from ddpm.runs.folder import RunFolder
from ddpm.runs.status import RunStatus, run_status
from ddpm.runtime.paths import user_path

REFRESH_SECONDS = 2.0  # seconds between two looks
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Watch:
    """Follow a run from any terminal; it is only read, so it may be watched by many, and late."""

    once: bool = False
    """Print the current status and exit."""


def run(argv: Sequence[str]) -> int:
    """Show the run until it is complete, or the user has seen enough (Ctrl-C)."""
    name, rest = positional(argv, "the folder of a run", "watch")
    args = parse(Watch, rest, f"watch {name or 'RUN'}", Watch())
    folder, console = RunFolder(user_path(name)), Console()
    status = run_status(folder)
    tell(**{key: value for key, value in asdict(status).items() if key != "losses"})
    tell(loss=status.loss, smoothed_loss=status.smoothed_loss)
    if args.once or is_document():
        console.print(frame(name, status))
        return 0
    try:
        with Live(frame(name, status), console=console, auto_refresh=False) as live:
            while not status.complete:
                time.sleep(REFRESH_SECONDS)
                status = run_status(folder)
                live.update(frame(name, status), refresh=True)
    except KeyboardInterrupt:
        return 0
    return 0


def frame(name: str, status: RunStatus) -> Panel:
    """One picture of the status."""
    table = Table.grid(padding=(0, 2))
    done = min(status.step / status.steps, 1.0)
    table.add_row("step", f"{status.step:,} of {status.steps:,} ({done:.1%})")
    if status.loss is not None:
        table.add_row("loss", f"{status.loss:.4f}, smoothed {status.smoothed_loss:.4f}")
        table.add_row("", sparkline(status.losses))
    if status.images_per_second is not None:
        table.add_row("speed", f"{status.images_per_second:,.0f} images/s")
    if status.complete:
        table.add_row("left", "nothing: the run is complete")
    elif status.seconds_left is not None:
        table.add_row("left", _clock(status.seconds_left))
    if status.checkpoint is None:
        table.add_row("checkpoint", "none yet")
    else:
        table.add_row("checkpoint", f"{status.checkpoint.name}, {_ago(status.checkpoint_age)}")
    table.add_row("last log entry", _ago(status.log_age))
    return Panel(table, title=escape(name), title_align="left", expand=False)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def _ago(seconds: float | None) -> str:
    """The age of a file."""
    return "not yet" if seconds is None else f"{_clock(seconds)} ago"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Bars of the values' logarithms, in at most `width` characters; what is not positive is left
    out."""
    positive = np.array([value for value in values if value > 0 and np.isfinite(value)])
    if len(positive) == 0:
        return ""
    means = [part.mean() for part in np.array_split(np.log(positive), min(width, len(positive)))]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)
