"""`ddpm reproduce table4 RUN` and `figure5`: rate and distortion of progressive coding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ddpm.cli.bounds import (
    BoundOptions,
    MeasuredBound,
    find_bound,
    measure_bound,
)
from ddpm.cli.data import open_for
from ddpm.cli.earlier import results_folder
from ddpm.cli.outcome import finish, tell
from ddpm.cli.paper_table import PaperTable
from ddpm.cli.parse import parse, positional
from ddpm.cli.results import result_path
from ddpm.evaluation import paper
from ddpm.evaluation.progressive_code import code_points, rate_and_distortion
from ddpm.likelihood.bound import Bound
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime.atomic import to_json, write_text


@dataclass(frozen=True)
class Table4(BoundOptions):
    """Rate and distortion of progressive coding (Table 4 and s. 4.3), read off the bound.

    All T steps of the model are measured unless --steps says less.
    """


def run(argv: Sequence[str]) -> int:
    """Find or measure the bound of held-out images, and show its table."""
    _, model, measured, path = shown(Table4, "table4", argv)
    written = path.with_name(f"{path.name}.json")
    document = code_document(model, measured)
    write_text(written, to_json(document, 2) + "\n")
    tell(**document)
    finish(f"written to {written}; every term: {measured.path}", made=[written, measured.path])
    return 0


def shown(
    options: type[BoundOptions], what: str, argv: Sequence[str]
) -> tuple[str, Ddpm, MeasuredBound, Path]:
    """Print the table of the model that the arguments name.

    Returns:
        The name, the model, its bound, and where results go, without an ending.
    """
    name, rest = positional(argv, "a run or checkpoint", f"reproduce {what}")
    args = parse(options, rest, f"reproduce {what} {name or 'RUN'}")
    model, measured = held_out_bound(name, args)
    code_table(model, measured.bound, str(measured), measured.settings["data"]).show()
    path = result_path(what, measured.settings, results_folder(name, args.out))
    return name, model, measured, path


def held_out_bound(name: str, options: BoundOptions) -> tuple[Ddpm, MeasuredBound]:
    """A model, and its bound on held-out images."""
    model = load(name, precision=options.precision)
    model.chain(options.plan)  # a wrong choice is refused before anything is read
    folder = results_folder(name, options.out)
    found = find_bound(model, folder, "test", options)
    if found is None:
        source = open_for(model, options.data, "test")
        found = measure_bound(model, name, source, folder, "test", options)
    return model, found


def code_table(model: Ddpm, bound: Bound, words: str, data: str) -> PaperTable:
    """Table 4 with one's own numbers beside the paper's.

    Args:
        model: whose T it is.
        bound: it is read off.
        words: what the bound was measured on.
        data: name of the images.
    """
    table = PaperTable(
        "Table 4: progressive coding",
        [
            *("reverse steps, T - t + 1", "t", "rate (bits/dim)", "RMSE (0..255)"),
            *("the paper's T - t + 1", "its rate", "its RMSE"),
        ],
    )
    for point in code_points(bound, model.diffusion.num_timesteps):
        table.rows.append(
            [
                f"{point.reverse_step:,}",
                f"{point.t:,}",
                f"{point.rate:.5f}",
                f"{point.rmse:.5f}",
                f"{point.paper.reverse_step:,}",
                f"{point.paper.rate:.5f}",
                f"{point.paper.rmse:.5f}",
            ]
        )
    rate, distortion = rate_and_distortion(bound)
    table.notes = [
        f"rate {rate:.2f} + distortion {distortion:.2f} (L_0) = {rate + distortion:.2f} bits/dim "
        f"(s. 4.3; the paper: {paper.RATE} + {paper.DISTORTION}), on {words}",
        f"the paper's numbers are of 32x32 images of CIFAR-10; these are of {model.format}, {data}",
    ]
    return table


def code_document(model: Ddpm, measured: MeasuredBound) -> dict[str, object]:
    """The same as JSON."""
    rate, distortion = rate_and_distortion(measured.bound)
    points = code_points(measured.bound, model.diffusion.num_timesteps)
    return {
        "settings": measured.settings,
        "bound": measured.path.name,
        "rows": [asdict(point) for point in points],
        "split": {"rate": rate, "distortion": distortion},
        "paper": {"rate": paper.RATE, "distortion": paper.DISTORTION},
    }
