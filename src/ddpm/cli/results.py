"""The results of `ddpm evaluate`: each is known by its settings and replaces only its like."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ddpm.data.exact_files import save_png
from ddpm.data.images import ImageSource
from ddpm.figures.bound_plots import rate_distortion_plot
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runs.checkpoint import checksum
from ddpm.runtime.atomic import atomically, to_json, write_text
from ddpm.runtime.device import resolve_precision


def settings(
    model: Ddpm, images: ImageSource, plan: Plan, split: str, path: str | None, seed: int
) -> dict[str, Any]:
    """What a result depends on."""
    return {
        "split": split,
        "images": len(images),
        "data": images.name,
        "path": path,
        "steps": model.diffusion.num_timesteps if plan.steps is None else plan.steps,
        "trajectory": plan.trajectory,
        "variance": plan.variance,
        **({"calibrated": True} if plan.calibrated else {}),
        "seed": seed,
        "precision": resolve_precision(model.precision or "auto", model.device),
        "step": model.history.step,
        "weights": checksum(model.network.state_dict()),
        **({} if model.label is None else {"class": model.label, "guidance": model.guidance}),
    }


def result_path(what: str, found: dict[str, Any], out: Path) -> Path:
    """Where a result is written, without an ending: settings that people vary can be read in its
    name, and all of them decide it."""
    words = [what, found["split"], f"{found['images']}-images", f"{found['steps']}-steps"]
    if isinstance(found["trajectory"], str):
        words.append(found["trajectory"])
    words += ["calibrated"] * found.get("calibrated", False)
    words += [str(found["variance"]), f"seed-{found['seed']}"]
    stamp = hashlib.blake2b(to_json(found).encode(), digest_size=3).hexdigest()
    return out / "-".join([*words, stamp])


def marks(source: Provenance, found: dict[str, Any]) -> dict[str, str]:
    """The text of a picture of a result; where the images lie is nobody's business."""
    told = {key: value for key, value in found.items() if key not in ("path", "weights")}
    return replace(source, settings=json.loads(to_json(told))).chunks()


def write_bound(
    bound: Bound, model: Ddpm, source: Provenance, found: dict[str, Any], path: Path
) -> None:
    """A result with all its terms, the rate-distortion curve, and its picture."""
    document = {
        "bits_per_dim": bound.mean,
        "standard_error": bound.standard_error,
        "images": len(bound.total),
        "settings": found,
        "model": asdict(model.history),
        "prior": float(bound.prior.mean()),
        "timesteps": bound.timesteps.tolist(),
        "terms": bound.terms.tolist(),
        "xstart_mse": bound.xstart_mse.tolist(),
        "eps_mse": bound.eps_mse.tolist(),
        "per_image": bound.total.tolist(),
    }
    write_text(path.with_name(f"{path.name}.json"), to_json(document) + "\n")
    curve = bound.rate_distortion()

    def write_curve(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(curve)
            rows.writerows(zip(*(column.tolist() for column in curve.values()), strict=True))

    atomically(path.with_name(f"{path.name}.csv"), write_curve)
    text = marks(source, found)
    save_png(rate_distortion_plot(bound), path.with_name(f"{path.name}.png"), text)
