"""The curves of a run: stats.jsonl, TensorBoard, and wherever else they are wanted."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable

from ddpm.runs.folder import RunFolder
from ddpm.runtime.atomic import check_free_space, to_json, write_text

MIN_FREE_BYTES = (
    1 << 20
)  # bytes left on a disk when the log refuses to grow, so that it can still be closed


@runtime_checkable
class Curves(Protocol):
    """Where curves go besides: a run of Weights & Biases, as `wandb.init` returns it."""

    def log(self, data: dict[str, float]) -> None:
        """Take one point of each curve."""

    def finish(self) -> None:
        """Send what is left."""


class RunLog:
    """Appends measurements of a step to stats.jsonl, TensorBoard and, if given, `curves`.

    Args:
        run: the folder.
        from_step: the step that the run goes on from.
        curves: see `Curves`.
    """

    def __init__(self, run: RunFolder, from_step: int, curves: Curves | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second; readers need none

        self.curves = curves
        self.path = run.stats
        kept = [line for line in read_stats(run) if line["step"] <= from_step]
        # What a resumed run will measure again is dropped.
        text = "".join(to_json(line) + "\n" for line in kept)
        write_text(self.path, text)
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run.tensorboard), purge_step=from_step + 1)

    def write(self, step: int, **values: float) -> None:
        """One line, one point a curve.

        Raises:
            DdpmError: the disk is all but full.
        """
        check_free_space(self.path, MIN_FREE_BYTES)
        self.file.write(to_json({"step": step, **values}) + "\n")
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


def read_stats(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of a run's stats.jsonl, oldest first; what a crash corrupted is left out.

    Every line has a `step`; a reader must expect any other key to be missing.
    """
    if not run.stats.is_file():
        return []
    found = []
    for line in run.stats.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            found.append(values)
    return found
