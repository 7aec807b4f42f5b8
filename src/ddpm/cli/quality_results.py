"""The figures of `ddpm evaluate --features`: written under a name that every setting decides, and
printed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm import __version__
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import say
from ddpm.cli.references import Reference
from ddpm.evaluation.measured import Measured
from ddpm.evaluation.quality import Figure, is_same_set
from ddpm.runtime.atomic import to_json, write_text

log = logging.getLogger("ddpm")


def write_figures(
    figures: list[Figure],
    found: Measured,
    real: Measured | None,
    reference: Reference | None,
    settings: dict[str, Any],
    name: str,
    out: Path,
    seed: int,
) -> None:
    """Write the figures, and print them."""
    if real is not None and is_same_set(found, real):
        log.warning("%s and %s have the same features: are they one set?", found.name, real.name)
    if not figures:
        return
    document = {
        "measures": {figure.name: figure.document() for figure in figures},
        "features": found.features,
        "samples": found.count,
        "reference": None if reference is None else described(reference, real),
        "seed_of_choices": seed,
        **settings,
        "ddpm": __version__,
    }
    words = [figures[0].name, name]
    words += [] if reference is None else ["to", slug(reference.name)]
    path = out / f"{'-'.join(words)}-{stamp_of(document)}.json"
    write_text(path, to_json(document, 1) + "\n")
    tell(**document)
    against = "" if real is None else f" to {real.name}" + counted(real.count)
    Console().print(table(figures, found.features + against))
    if real is not None and real.vectors is None:
        say(
            f"{real.name} has no features of single images, which the kernel distance, precision "
            "and recall need; give --reference the images for these"
        )
    drawn = f"; samples drawn in {settings['precision']}" if "precision" in settings else ""
    finish(
        f"{figures[0].name} {figures[0].value:.4g}{against}{drawn}",
        f"written to {path}",
        made=[path],
    )


def described(reference: Reference, real: Measured | None) -> dict[str, Any]:
    """The reference as JSON."""
    assert real is not None
    return {
        "given": reference.name,
        "set": real.name,
        "split": reference.split or real.about.get("split") or None,
        "count": real.count,
        "score": None if real.score is None else asdict(real.score),
    }


def counted(count: int | None) -> str:
    """The number of a reference's images, if it is known."""
    return ", an unknown number of images" if count is None else f", {count:,} images"


def table(figures: list[Figure], title: str) -> Table:
    """The figures for the terminal."""
    columns = ["measure", "samples"] + ["real images"] * any(f.real is not None for f in figures)
    found = Table(*columns, title=escape(title))
    for figure in figures:
        spread = "" if figure.std is None else f" (std {figure.std:.2g})"
        row = [figure.name, f"{figure.value:.4g}{spread}"]
        row += [] if len(columns) == 2 else ["" if figure.real is None else f"{figure.real:.4g}"]
        found.add_row(*row)
    return found


def stamp_of(found: dict[str, Any]) -> str:
    """Six letters that differ between settings."""
    known = {key: value for key, value in found.items() if key not in ("measures", "ddpm")}
    return hashlib.blake2b(to_json(known).encode(), digest_size=3).hexdigest()


def slug(name: str) -> str:
    """A name as a part of a file's."""
    return re.sub(r"[^\w.]+", "-", Path(name).name or name).strip("-")[:40]
