"""`ddpm plot RUN`: the curves of a training run as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm.cli.outcome import finish
from ddpm.cli.parse import parse, positional
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.figures.curves import run_curves
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import read_stats
from ddpm.runtime.paths import user_path


@dataclass(frozen=True)
class Plot:
    """Draw loss, learning rate and images/s of a run against its steps."""

    out: Path | None = None
    """The PNG; curves.png in the run's folder by default."""


def run(argv: Sequence[str]) -> int:
    """Read the run's stats.jsonl and draw it."""
    name, rest = positional(argv, "the folder of a run", "plot")
    args = parse(Plot, rest, f"plot {name or 'RUN'}", Plot())
    folder = RunFolder(user_path(name))
    check(
        folder.stats.is_file(),
        f"{folder.path} is not the folder of a training run: it holds no {folder.stats.name}",
    )
    out = args.out or folder.path / "curves.png"
    save_png(run_curves(read_stats(folder)), out)
    finish(f"written to {out}", made=[out])
    return 0
