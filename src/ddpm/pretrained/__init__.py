"""Models that come with the package. Their names stand for a run in every command."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def pretrained() -> dict[str, Path]:
    """The file of each model by its name; beside it lies its model card."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.safetensors"))}
