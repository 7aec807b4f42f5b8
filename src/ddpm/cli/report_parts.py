"""Parts of the page of `ddpm report` that measure nothing themselves: what a model is, figures,
results of before, and the paper's tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from PIL import Image

from ddpm.cli.bounds import BoundOptions, bound_words, find_bound
from ddpm.cli.earlier import figures_of, inception_cells, results_folder, results_of
from ddpm.cli.info import model_rows
from ddpm.cli.paper_table import Cell
from ddpm.cli.parse import typed
from ddpm.cli.progress import progress_bar
from ddpm.cli.reproduce_table1 import SPLITS, bound_cell, cifar10_table, training_table
from ddpm.cli.reproduce_table4 import code_table
from ddpm.data.images import ImageSource
from ddpm.data.open import Split
from ddpm.figures.figure import Figure
from ddpm.figures.html_page import HtmlPage
from ddpm.figures.named import FIGURES
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.provenance import SYNTHETIC, model_name


def model_section(page: HtmlPage, model: Ddpm) -> None:
    """What the model is, and what its weights have been through."""
    page.text(f"{SYNTHETIC}: all pictures on this page but those of real images.")
    page.section("The model")
    page.table(["", ""], model_rows(model))


def figure_section(
    page: HtmlPage, model: Ddpm, name: str, plan: Plan, images: Callable[[Split], ImageSource]
) -> None:
    """A figure of the paper.

    Args:
        page: it goes to.
        model: it is of.
        name: of the figure.
        plan: of what is drawn for it.
        images: gives those of a split.

    Raises:
        DdpmError: the model, or the images that there are, do not allow it.
    """
    kind = FIGURES[name]
    planned = kind.network and "plan" in {option.name for option in fields(kind)}
    figure: Figure = kind(**({"plan": plan} if planned else {}))
    figure.check(model)
    source = None if kind.split is None else images(kind.split)
    with progress_bar() as progress:
        drawn = figure.draw(model, source, progress=progress)
    shown = "" if source is None else f" ({source.name})"
    page.section(name.replace("-", " ").capitalize())
    page.picture(drawn.picture, f"{drawn.caption[:1].upper()}{drawn.caption[1:]}{shown}.")


def paper_sections(page: HtmlPage, model: Ddpm, name: str, measured: Bound | None) -> None:
    """Tables 1 and 4 beside the paper's numbers.

    Args:
        page: they go to.
        model: they are of.
        name: of the model, as it was typed.
        measured: a bound on held-out images, for where none of all steps was measured before.
    """
    folder, given = results_folder(name, None), typed(Path(model_name(name)))
    before = {split: find_bound(model, folder, split, BoundOptions()) for split in SPLITS}
    why = f"not measured with all steps: `ddpm reproduce table1 {given}`"
    cells = inception_cells(model, folder, given)
    for split, found in before.items():
        cells[f"NLL {split}"] = Cell(None, why) if found is None else bound_cell(found)
    cifar10_table(model, cells).put(page)
    training_table(model).put(page)
    whole = before["test"]
    if whole is not None:
        code_table(model, whole.bound, str(whole), whole.settings["data"]).put(page)
    elif measured is not None:
        words = bound_words(len(measured.total), "held-out images", len(measured.timesteps))
        code_table(model, measured, words, model.history.data).put(page)


def earlier_section(page: HtmlPage, model: Ddpm, name: str) -> None:
    """What was measured of the model before, with its pictures.

    Raises:
        OSError: a picture cannot be read.
    """
    folder = results_folder(name, None)
    rows: list[list[str]] = []
    pictures: list[tuple[Image.Image, str]] = []
    for path, document in results_of(model, folder):
        found = figures_of(document)
        rows += [[path.stem, what, value] for what, value in found.items()]
        for file in sorted(folder.glob(f"{path.stem}*.png")) if found else ():
            with Image.open(file) as picture:
                pictures.append((picture.copy(), file.stem))
    page.section("Measured before")
    if not rows:
        page.text("Nothing: no results of `ddpm evaluate` lie beside this model.")
        return
    page.table(["result", "what", "value"], rows)
    for picture, caption in pictures:
        page.picture(picture, caption)
