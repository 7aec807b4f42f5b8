"""`ddpm info RUN`: what a trained model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.parse import positional
from ddpm.loading import load
from ddpm.runs.folder import RunFolder
from ddpm.runtime.paths import user_path

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
    run_folder = RunFolder(user_path(name))
    pinned = [path.name for path in run_folder.pinned()]
    if pinned:
        table.add_row("kept for archives", ", ".join(pinned))
    history = asdict(model.history)
    facts = history.pop("facts") or {}
    facts.pop("sample", None)
    history["images_seen"] = history.pop("images")
    groups = {**model.config.to_dict(), "images": facts, "history": history}
    for group, settings in groups.items():
        for key, value in settings.items():
            table.add_row(f"{group}.{key}", escape(shortened(value)))
    Console().print(table)
    return 0


def shortened(value: object) -> str:
    """A value for people: a thousand betas are not shown one by one."""
    text = f"{value:.1f}" if isinstance(value, float) and value > 100 else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
