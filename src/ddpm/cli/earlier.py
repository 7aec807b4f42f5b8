"""What was measured of a model before: the results that `ddpm evaluate` and others have written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ddpm.cli.paper_table import Cell
from ddpm.data.splits import side
from ddpm.interop.diffusers import is_diffusers
from ddpm.model import Ddpm
from ddpm.provenance import fingerprint
from ddpm.runs.checkpoint import checksum
from ddpm.runs.folder import RunFolder
from ddpm.runtime.paths import user_path

SCORE, FID, FID_TEST = "IS", "FID", "FID test"  # FID to the training set, and to the test set


def results_folder(name: str, out: Path | None) -> Path:
    """Where the results of a model lie: by default in its run, or beside its file."""
    path = user_path(name)
    return user_path(out) if out else (path if is_ours(path) else path.parent) / "evaluation"


def is_ours(path: Path) -> bool:
    """Whether results may go into a folder: one of somebody else's model is left as it is."""
    return path.is_dir() and (bool(RunFolder(path).checkpoints()) or not is_diffusers(path))


def results_of(model: Ddpm, folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Everything in a folder that was measured of this very model, whatever its file is called.

    Files that are no results, cannot be read, or are of other weights are passed over.
    """
    weights, known, found = checksum(model.network.state_dict()), fingerprint(model), []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(document, dict):
            continue
        described = document.get("settings", document)
        if not isinstance(described, dict):
            continue
        if described.get("weights") == weights or document.get("model") == known:
            found.append((path, document))
    return found


def inception_cells(model: Ddpm, folder: Path, name: str) -> dict[str, Cell]:
    """Inception score and FID out of what `ddpm evaluate` has written, of the most samples."""
    if model.format.channels != 3:
        why = f"Inception takes RGB images, and this model's are {model.format}"
        return dict.fromkeys((SCORE, FID, FID_TEST), Cell(None, why))
    command = f"not measured: `ddpm evaluate {name} --fid --samples 50000"
    like_cifar10 = model.format.shape == (3, 32, 32)
    cells = {
        column: Cell(None, f"{command}{f' --reference cifar10-{split}' * like_cifar10}`")
        for column, split in ((SCORE, "train"), (FID, "train"), (FID_TEST, "test"))
    }
    most = dict.fromkeys(cells, (0, 0))
    for path, document in results_of(model, folder):
        reference = document.get("reference") or {}
        for key, figure in (document.get("measures") or {}).items():
            known = re.fullmatch(r"(fid|inception_score)_(\d+)", key)
            if known is None or document.get("class") is not None:
                continue
            column, count = SCORE, int(known[2])
            if not isinstance(reference, dict) or not isinstance(figure, dict):
                continue
            if known[1] == "fid":
                split = reference.get("split") or side(str(reference.get("given")))
                column = FID_TEST if split == "test" else FID
            plan = document.get("plan") or {}  # of a set; the paper's chains have all steps
            steps = plan.get("steps") or model.diffusion.num_timesteps
            rank = (count, document.get("calls") or steps)
            if rank > most[column]:
                most[column] = rank
                compared = f" to {reference.get('set')}" * (column != SCORE)
                cells[column] = Cell(figure["value"], source=f"{key}{compared}, in {path.name}")
    return cells


def figures_of(document: dict[str, Any]) -> dict[str, str]:
    """What a result says, in words by name; nothing for what is no measure."""
    if "xstart_mse" in document:
        return {"bits/dim, the bound": _with_error(document)}
    if "archive_bytes" in document:
        size = f"{document['archive_bytes']:,} bytes"
        return {"bits/dim, one archive": f"{document['bits_per_dim']:.4f} ({size})"}
    precision = document.get("precision")
    drawn = f" (samples drawn in {precision})" if precision else ""
    return {
        name: f"{figure['value']:.4g}{drawn}"
        for name, figure in (document.get("measures") or {}).items()
    }


def _with_error(document: dict[str, Any]) -> str:
    """bits/dim of `write_bound`."""
    error = document.get("standard_error")
    said = f"{document['bits_per_dim']:.4f}"
    return said if error is None else f"{said} ± {error:.4f} (standard error)"
