"""`ddpm reproduce table3 [RUN ...]`: FID of models of LSUN beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm.cli.earlier import FID, inception_cells, results_folder
from ddpm.cli.outcome import finish, tell
from ddpm.cli.paper_table import Cell, PaperTable, differences_table
from ddpm.cli.parse import parse, typed
from ddpm.data.splits import words
from ddpm.errors import check
from ddpm.evaluation import paper
from ddpm.evaluation.recipe import differences, parameters_of
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.paths import user_path
from ddpm.training.presets import get_preset


@dataclass(frozen=True)
class Table3:
    """FID of LSUN models at 256x256, read from what `ddpm evaluate RUN --fid --samples 50000` has
    written, beside the paper's. Runs come first; which row each belongs to is read off its data and
    network."""

    out: Path | None = None
    """A JSON file for the table; none by default."""


def run(argv: Sequence[str]) -> int:
    """Place every run in its row, and print the table."""
    names: list[str] = []
    while len(names) < len(argv) and not argv[len(names)].startswith("-"):
        names.append(argv[len(names)])
    args = parse(Table3, argv[len(names) :], "reproduce table3 [RUN ...]")
    models = {name: load(name) for name in names}
    places = {name: row_of(name, model) for name, model in models.items()}
    table = PaperTable("Table 3: LSUN at 256x256", ["", "run", "FID", "the paper's FID"])
    cells: dict[str, Cell] = {}
    for row in paper.TABLE3:
        found = [name for name, place in places.items() if place == row]
        for name in found:
            cell = inception_cells(models[name], results_folder(name, None), typed(Path(name)))[FID]
            cells[f"{row.name}, {name}"] = cell
            table.rows.append([row.name, name, str(cell), f"{row.fid:.2f}"])
        if not found:
            cells[row.name] = Cell(
                None,
                f"no run was given; it needs images of LSUN {row.category} and a model that was "
                f"trained on them (`ddpm train {row.preset} --data FOLDER`)",
            )
            table.rows.append([row.name, "", "", f"{row.fid:.2f}"])
    table.explain(cells)
    table.show()
    for name, place in places.items():
        rows = differences(models[name], get_preset(place.preset), f"LSUN {place.category}")
        differences_table(f"What differs in training: {name}", rows).show()
    document = {
        "cells": {name: cell.document() for name, cell in cells.items()},
        "paper": [vars(row) for row in paper.TABLE3],
    }
    tell(**document)
    if args.out is not None:
        written = user_path(args.out)
        write_text(written, to_json(document, 2) + "\n")
        finish(f"written to {written}", made=[written])
    return 0


def row_of(name: str, model: Ddpm) -> paper.LsunRow:
    """Where in the table a model belongs.

    Raises:
        DdpmError: that cannot be told: it is of another size, or neither the name of its images
            nor their path says which part of LSUN they are.
    """
    data = model.config.data
    said = {word for text in (model.history.data, data.path or "") for word in words(text)}
    rows = [row for row in paper.TABLE3 if {row.category, f"{row.category}s"} & said]
    categories = {row.category for row in rows}
    check(
        len(categories) == 1 and model.format.shape == (3, 256, 256),
        f"{name} has no place in table3, which has LSUN {', '.join(_categories())} at 256x256: it "
        f"was trained on '{model.history.data or 'images that it does not name'}' of "
        f"{model.format}",
    )

    def distance(row: paper.LsunRow) -> int:
        return abs(parameters_of(get_preset(row.preset)) - model.num_parameters)

    return min(rows, key=distance)


def _categories() -> list[str]:
    return list(dict.fromkeys(row.category for row in paper.TABLE3))
