"""`ddpm info RUN`: what a trained model is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.parse import positional
from ddpm.model import load


def run(argv: Sequence[str]) -> int:
    """Print the model's facts, configuration and history."""
    name, _ = positional(argv, "a run or checkpoint", "info")
    if not name:
        print("usage: ddpm info RUN\n\nSay what the model in a run or checkpoint is.")
        return 0
    model = load(name, device="cpu")
    channels, height, width = model.facts.shape
    table = Table(title=escape(name), show_header=False)
    table.add_row("data", escape(f"{model.facts.name}: {channels} x {height} x {width}"))
    table.add_row("grey levels", str(model.facts.grey_levels))
    table.add_row("parameters", f"{model.network.num_parameters():,}")
    for group, settings in model.config.to_dict().items():
        for key, value in settings.items():
            table.add_row(f"{group}.{key}", escape(str(value)))
    for key, value in model.history.items():
        text = f"{value:.1f}" if isinstance(value, float) else str(value)
        table.add_row(key, escape(text))
    Console().print(table)
    return 0
