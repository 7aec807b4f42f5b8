"""`ddpm reproduce figure5 RUN`: rate and distortion against time and each other, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.cli.bounds import BoundOptions
from ddpm.cli.earlier import results_folder
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.reproduce_table4 import code_table, held_out_bound
from ddpm.cli.results import result_path
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
    name, rest = positional(argv, "a run or checkpoint", "reproduce figure5")
    args = parse(Figure5, rest, f"reproduce figure5 {name or 'RUN'}")
    model, measured = held_out_bound(name, args)
    code_table(model, measured.bound, str(measured), measured.settings["data"]).show()
    path = result_path("figure5", measured.settings, results_folder(name, args.out))
    written = path.with_name(f"{path.name}.png")
    source = Provenance.of(model, name, ["reproduce", "figure5", *argv], **measured.settings)
    save_png(rate_distortion_plot(measured.bound), written, source.chunks())
    say(f"written to {written}; every term: {measured.path}")
    return 0
