"""`ddpm reproduce figure5 RUN`: rate and distortion against time and each other, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.cli.bounds import BoundOptions
from ddpm.cli.outcome import finish, tell
from ddpm.cli.reproduce_table4 import code_document, shown
from ddpm.cli.results import marks
from ddpm.data.exact_files import save_png
from ddpm.figures.bound_plots import rate_distortion_plot
from ddpm.provenance import Provenance


@dataclass(frozen=True)
class Figure5(BoundOptions):
    """Distortion and rate of progressive coding (Figure 5) as a picture, and Table 4 beside it.

    All T steps of the model are measured unless --steps says less.
    """


def run(argv: Sequence[str]) -> int:
    """Find or measure the bound of held-out images, and draw it."""
    name, model, measured, path = shown(Figure5, "figure5", argv)
    written = path.with_name(f"{path.name}.png")
    source = Provenance.of(model, name, ["reproduce", "figure5", *argv])
    save_png(rate_distortion_plot(measured.bound), written, marks(source, measured.settings))
    tell(**code_document(model, measured))
    finish(f"written to {written}; every term: {measured.path}", made=[written, measured.path])
    return 0
