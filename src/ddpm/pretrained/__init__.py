"""Models that come with the package. Their names stand for a run in every command."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def pretrained() -> dict[str, Path]:
    """The file of each model by its name; beside it lie its error tables and its model card."""
    files = sorted(FOLDER.glob("*.safetensors"))
    return {file.stem: file for file in files if not file.name.startswith("errors-")}
