"""`ddpm models`: the trained models that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse
from ddpm.loading import load
from ddpm.pretrained import pretrained


@dataclass(frozen=True)
class Models:
    """List the trained models that come with the package; each name stands for a run."""


def run(argv: Sequence[str]) -> int:
    """Print name, size and training of each."""
    parse(Models, argv, "models")
    table = Table("name", "images", "parameters", "trained on", "file")
    for name, file in pretrained().items():
        model = load(file, device="cpu")
        tell(
            **{
                name: {
                    "shape": model.format.shape,
                    "parameters": model.num_parameters,
                    "trained_on": model.history.data,
                    "images_seen": model.history.images,
                    "bytes": file.stat().st_size,
                }
            }
        )
        table.add_row(
            name,
            " x ".join(map(str, model.format.shape)),
            f"{model.num_parameters:,}",
            f"{model.history.data}, {model.history.images:,} images seen",
            f"{file.stat().st_size / 2**20:.1f} MiB",
        )
    Console().print(table)
    finish(then={f"ddpm sample {next(iter(pretrained()))}": "draw from one"})
    return 0
