"""`ddpm info RUN`: what a trained model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.parse import positional
from ddpm.loading import load

LONGEST = 100  # characters of a value


def run(argv: Sequence[str]) -> int:
    """Print the model's images, configuration and history."""
    name, _ = positional(argv, "a run or checkpoint", "info")
    if not name:
        print("usage: ddpm info RUN\n\nSay what the model in a run or checkpoint is.")
        return 0
    model = load(name, device="cpu")
    table = Table(title=escape(name), show_header=False)
    table.add_row("images", str(model.format))
    table.add_row("parameters", f"{model.num_parameters:,}")
    measured = (
        "not measured"
        if model.denoising_error is None
        else f"measured on {model.denoising_error.images:,} images"
    )
    table.add_row("denoising error", measured)
    for group, settings in {**model.config.to_dict(), "history": asdict(model.history)}.items():
        for key, value in settings.items():
            table.add_row(f"{group}.{key}", escape(shortened(value)))
    Console().print(table)
    return 0


def shortened(value: object) -> str:
    """A value for people: a thousand betas are not shown one by one."""
    text = f"{value:.1f}" if isinstance(value, float) and value > 100 else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
