"""Where a run stands, read from what it leaves in its folder; the run itself is not asked."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ddpm.errors import DdpmError, check
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import read_stats

SMOOTHED = 20  # lines of stats.jsonl that the smoothed loss is the mean of


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment; what is not known (yet) is None.

    Args:
        step, steps: the last step that was logged, and of how many.
        losses: every logged loss, oldest first.
        images_per_second: since the run was last started.
        seconds_left: at that speed.
        log_age, checkpoint_age: seconds since the log and the newest checkpoint were written.
        checkpoint: the newest.
        complete: whether the checkpoint of the last step is there.
    """

    step: int
    steps: int
    losses: tuple[float, ...]
    images_per_second: float | None
    seconds_left: float | None
    log_age: float | None
    checkpoint: Path | None
    checkpoint_age: float | None
    complete: bool

    @property
    def loss(self) -> float | None:
        """The latest."""
        return self.losses[-1] if self.losses else None

    @property
    def smoothed_loss(self) -> float | None:
        """The mean of the latest few."""
        return fmean(self.losses[-SMOOTHED:]) if self.losses else None


def run_status(run: RunFolder) -> RunStatus:
    """Read the status of `run`.

    Raises:
        DdpmError: it is not the folder of a run.
    """
    check(
        run.config.is_file(),
        f"{run.path} is not the folder of a training run: it holds no {run.config.name}",
    )
    try:
        training = json.loads(run.config.read_text(encoding="utf-8"))["training"]
        steps, batch_size = int(training["steps"]), int(training["batch_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise DdpmError(
            f"{run.config} is damaged ({error}); resuming the run rewrites it"
        ) from error
    lines = read_stats(run)
    speeds = [line["images_per_second"] for line in lines if line.get("images_per_second")]
    step, speed = (lines[-1]["step"] if lines else 0), (speeds[-1] if speeds else None)
    found = run.checkpoints()
    return RunStatus(
        step=step,
        steps=steps,
        losses=tuple(line["loss"] for line in lines if line.get("loss") is not None),
        images_per_second=speed,
        seconds_left=max(steps - step, 0) * batch_size / speed if speed else None,
        log_age=_age(run.stats) if lines else None,
        checkpoint=found[-1] if found else None,
        checkpoint_age=_age(found[-1]) if found else None,
        complete=run.checkpoint(steps).is_file(),
    )


def _age(path: Path) -> float | None:
    """Seconds since `path` was written; None if it is gone."""
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except FileNotFoundError:  # the run has rotated it away in the meantime
        return None
