"""A folder of samples: never a mix, and gone on with where it was left."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ddpm import __version__
from ddpm.data.exact_files import numbered, write_images
from ddpm.errors import DdpmError, check
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runs.checkpoint import checksum, model_tensors
from ddpm.runs.folder import is_alive
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable, to_json, write_text
from ddpm.runtime.device import resolve_precision

SETTINGS = "samples.json"


def describe(model: Ddpm, sampler: str, eta: float | None, plan: Plan, seed: int) -> dict[str, Any]:
    """Everything that decides what the i-th image is."""
    tensors = model_tensors(model.network.state_dict(), model.diffusion, model.denoising_error)
    return {
        "model": checksum(tensors, asdict(model.format)),
        "seed": seed,
        "sampler": sampler if eta is None else f"{sampler} (eta {eta:g})",
        "plan": json.loads(to_json(asdict(plan))),
        "precision": resolve_precision(model.precision or "auto", model.device),
    }


def missing_images(folder: Path, n: int, wanted: dict[str, Any]) -> list[int]:
    """Prepare the folder, and say which of the first n images it lacks; all processes agree.

    Raises:
        DdpmError: there is something else in it, or images that were made otherwise.
    """
    lacking = torch.zeros(n, dtype=torch.long)
    with parallel.agreement():
        if parallel.is_main():
            _check(folder, wanted)
            check_writable(folder)
            for path in folder.glob(".*.png.*.partial"):
                if not is_alive(int(path.name.split(".")[-2])):  # of a process that was killed
                    path.unlink()
            if not (folder / SETTINGS).exists():
                write_text(folder / SETTINGS, to_json({**wanted, "ddpm": __version__}, 1) + "\n")
            lacking = torch.tensor([int(not numbered(folder, i).is_file()) for i in range(n)])
    parallel.all_reduce_sum(lacking)
    return torch.nonzero(lacking).flatten().tolist()


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder of anything else."""
    if not folder.exists():
        return
    check(folder.is_dir(), f"{folder} is there already and is no folder; choose another --out")
    names = sorted(path.name for path in folder.iterdir())
    ours = re.compile(r"\d{6,}\.png|\.\d{6,}\.png\.\d+\.partial|" + re.escape(SETTINGS))
    others = [name for name in names if not ours.fullmatch(name)]
    check(
        not others,
        f"{folder} holds {', '.join(others[:3])}, which no sampling made; choose an empty folder",
    )
    if not names:
        return
    check(SETTINGS in names, f"{folder} holds images of unknown origin; choose an empty folder")
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        differing = [key for key, value in wanted.items() if found.get(key) != value]
    except (OSError, ValueError, AttributeError) as error:
        raise DdpmError(f"{folder / SETTINGS} is damaged; choose an empty folder") from error
    check(
        not differing,
        f"{folder} holds samples of another {' and '.join(differing)}; choose an empty folder",
    )


def draw_into(folder: Path, model: Ddpm, batches: Any) -> None:
    """Write the images batch by batch, each whole or not at all."""
    with parallel.agreement():
        for numbers, images in batches:
            paths = [numbered(folder, int(i)) for i in numbers]
            write_images(list(images), paths, model.format)
