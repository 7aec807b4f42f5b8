"""Checkpoints of format 1, as ddpm 0.1 wrote them, read as the present format.

They named no kinds, stored no betas, and kept the denoising error of all T timesteps in a second
file beside the checkpoint, which named the checkpoint by its checksum.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddpm.errors import DdpmError
from ddpm.likelihood.denoising_error import PREFIX, measured_timesteps

FORMAT = 1

log = logging.getLogger("ddpm")


def beside(path: Path) -> Path:
    """Where the denoising error of a checkpoint was kept."""
    return path.with_name(f"errors-{path.name}")


def described(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the checksum of a file covers besides its tensors."""
    return {key: value for key, value in metadata.items() if key != "checksum"}


def upgrade(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata as the present format has them.

    Raises:
        DdpmError: the description is not what format 1 had.
    """
    try:
        facts, history = metadata["facts"], dict(metadata["history"])
        channels, height, width = facts["shape"]
        images = {"channels": channels, "height": height, "width": width}
        earlier = {f"{name}_before": value for name, value in history.pop("before", {}).items()}
        upgraded = {
            "format": FORMAT,
            "config": metadata["config"],
            "images": {**images, "levels": facts["grey_levels"]},
            "history": {**history, **earlier, "data": facts["name"]},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DdpmError(f"{path} does not hold the model that it describes ({error!r})") from error
    return {**tensors, **_denoising_error(path, metadata)}, upgraded


def _denoising_error(path: Path, metadata: dict[str, Any]) -> dict[str, Tensor]:
    """The measured rows of the table beside a checkpoint, if it is this checkpoint's."""
    file_path = beside(path)
    if not file_path.is_file():
        return {}
    try:
        with safe_open(file_path, framework="pt") as file:
            known = json.loads((file.metadata() or {}).get("ddpm", "{}"))
            if known.get("model") != metadata["checksum"]:
                return {}
            table, decoder = file.get_tensor("xstart_mse"), file.get_tensor("decoder_bpd")
            images = int(known["images"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("%s is damaged (%s); measure the model again", file_path, error)
        return {}
    rows = torch.from_numpy(measured_timesteps(len(table)))
    return {
        f"{PREFIX}timesteps": rows,
        f"{PREFIX}xstart_mse": table[rows].float(),
        f"{PREFIX}decoder_bpd": decoder[rows].double(),
        f"{PREFIX}images": torch.tensor(images),
    }
