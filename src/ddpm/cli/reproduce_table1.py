"""`ddpm reproduce table1 RUN`: bits/dim, FID and Inception score beside the paper's on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddpm.cli.bounds import (
    BoundOptions,
    MeasuredBound,
    find_bound,
    measure_bound,
)
from ddpm.cli.data import open_for
from ddpm.cli.earlier import inception_cells, results_folder
from ddpm.cli.outcome import finish, tell
from ddpm.cli.paper_table import Cell, PaperTable, differences_table
from ddpm.cli.parse import as_flags, parse, positional, typed
from ddpm.data.images import ImageSource
from ddpm.data.open import NoHeldOut, Split
from ddpm.errors import DdpmError
from ddpm.evaluation import paper
from ddpm.evaluation.recipe import differences
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime.atomic import to_json, write_text
from ddpm.training.presets import get_preset

SPLITS: tuple[Split, ...] = ("test", "train")


@dataclass(frozen=True)
class Table1(BoundOptions):
    """bits/dim of held-out and training images, FID and Inception score, beside the paper's.

    bits/dim are measured here, with all T steps of the model unless --steps says less. FID and
    Inception score are read from what `ddpm evaluate RUN --fid --samples 50000` has written.
    """


def run(argv: Sequence[str]) -> int:
    """Measure what can be, and print the table."""
    name, rest = positional(argv, "a run or checkpoint", "reproduce table1")
    args = parse(Table1, rest, f"reproduce table1 {name or 'RUN'}")
    model = load(name, precision=args.precision)
    model.chain(args.plan)  # a wrong choice is refused before anything is read
    folder = results_folder(name, args.out)
    found: dict[Split, MeasuredBound | ImageSource | str] = {
        split: find_bound(model, folder, split, args) or images_of(model, split, args.data)
        for split in SPLITS
    }
    cells = {
        f"NLL {split}": bound_cell(
            measure_bound(model, name, what, folder, split, args)
            if isinstance(what, ImageSource)
            else what
        )
        for split, what in found.items()
    }
    cells = {**inception_cells(model, folder, typed(Path(name))), **cells}
    table, training = cifar10_table(model, cells), training_table(model)
    table.show()
    training.show()
    written = folder / "table1.json"
    document = {
        "model": name,
        "cells": {key: cell.document() for key, cell in cells.items()},
        "paper": [vars(row) for row in paper.TABLE1],
        "differences": training.rows,
    }
    write_text(written, to_json(document, 2) + "\n")
    tell(**document)
    finish(f"written to {written}", made=[written])
    return 0


def images_of(model: Ddpm, split: Split, data: str | None) -> ImageSource | str:
    """The images of a split, or why there are none; images that were named must be there."""
    try:
        return open_for(model, data, split)
    except NoHeldOut as error:
        return as_flags(str(error))
    except DdpmError as error:
        if data is not None:
            raise
        return as_flags(str(error))


def bound_cell(what: MeasuredBound | str) -> Cell:
    """bits/dim with their standard error."""
    if isinstance(what, str):
        return Cell(None, f"not measured: {what}")
    images = len(what.bound.total)
    error = what.bound.standard_error if images > 1 else None
    return Cell(what.bound.mean, "", error, f"{what} (± one standard error)", most=True)


def cifar10_table(model: Ddpm, cells: dict[str, Cell]) -> PaperTable:
    """Table 1: this model's cells above the paper's."""
    table = PaperTable("Table 1: CIFAR-10", ["", *cells])
    table.rows.append(["this model", *map(str, cells.values())])
    for row in paper.TABLE1:
        numbers = (row.inception_score, row.fid, row.fid_test)
        table.rows.append(
            [
                f"the paper, {row.objective}",
                *("" if number is None else f"{number:.2f}" for number in numbers),
                f"≤ {row.nll_test:.2f}",
                f"≤ {row.nll_train:.2f}",
            ]
        )
    table.explain(cells)
    table.notes.append("FID test of L, fixed isotropic: empty, the paper does not give it")
    recipe = get_preset("cifar10").data
    if (model.format.height, model.format.channels) != (recipe.image_size, recipe.channels):
        table.notes.append(
            f"these are other images than the paper's: {model.format}, so that no number of the "
            "two can be compared"
        )
    return table


def training_table(model: Ddpm) -> PaperTable:
    """What differs from how the paper trained the row of the same loss."""
    recipe = get_preset("cifar10")
    if model.config.training.loss == "vlb":
        recipe = replace(recipe, training=replace(recipe.training, loss="vlb"))
    rows = differences(model, recipe, "cifar10 (train)")
    return differences_table("What differs in training", rows)
