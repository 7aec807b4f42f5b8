"""Bounds that a table or a page needs: found among the results of the model, or measured and kept
where `ddpm evaluate --bpd` would keep them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ddpm.cli.earlier import results_of
from ddpm.cli.parse import say
from ddpm.cli.progress import progress_bar
from ddpm.cli.results import result_path, settings, write_bound
from ddpm.data.images import FirstImages, ImageSource
from ddpm.data.open import Split
from ddpm.errors import check
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Precision, resolve_precision

IMAGES = 64  # that a bound is measured on where nobody says more: all T steps take long


@dataclass(frozen=True)
class BoundOptions:
    """How bits/dim are measured."""

    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on; what the model was trained on by default."""
    images: int | None = None
    """How many, the first of the set; by default as many as were measured before, or else 64."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    seed: int | None = None
    """Decides the noise; 0 by default."""
    batch_size: int | None = None
    """Images in one network call; 256 by default, or fewer large ones."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16; what it was trained in by default."""
    out: Path | None = None
    """Folder for the results, where those of before are looked for too; RUN/evaluation by
    default."""

    def __post_init__(self) -> None:
        check(
            self.images is None or self.images >= 1, f"--images must be positive, got {self.images}"
        )
        check(self.seed is None or self.seed >= 0, f"--seed must be at least 0, got {self.seed}")
        size = self.batch_size
        check(size is None or size >= 1, f"--batch-size must be at least 1, got {size}")


@dataclass(frozen=True)
class MeasuredBound:
    """A bound, what it was measured on, and the file that has all of it.

    Args:
        bound: on all images; of one that was read back `prior` is its mean.
        settings: see `ddpm.cli.results.settings`.
        path: of the JSON file.
    """

    bound: Bound
    settings: dict[str, Any]
    path: Path

    def __str__(self) -> str:
        found = self.settings
        words = bound_words(found["images"], f"images of {found['data']}", found["steps"])
        calibrated = ", calibrated" if found.get("calibrated") else ""
        return f"{words}, variance {found['variance']}{calibrated}"


def bound_words(count: int, images: str, steps: int) -> str:
    """What a bound was measured on."""
    return f"{count:,} {images}, {steps:,} step{'s' * (steps > 1)}"


def find_bound(
    model: Ddpm, folder: Path, split: Split, options: BoundOptions
) -> MeasuredBound | None:
    """The bound on the most images that was measured before as the options ask; None if there is
    none, or if other images or another number of them are asked for."""
    if options.images is not None or options.data is not None:
        return None
    plan = options.plan.resolved(model.diffusion, model.denoising_error is not None)
    asked = {
        "split": split,
        "steps": model.diffusion.num_timesteps if plan.steps is None else plan.steps,
        "trajectory": _plain(plan.trajectory),
        "variance": plan.variance,
        "precision": resolve_precision(model.precision or "auto", model.device),
    }
    if options.seed is not None:
        asked["seed"] = options.seed
    if model.config.data.path is not None:
        asked["path"] = model.config.data.path  # the same images as would be measured on now
    fitting = [
        MeasuredBound(_read(document), document["settings"], path)
        for path, document in results_of(model, folder)
        if "xstart_mse" in document
        and asked.items() <= document["settings"].items()
        and document["settings"].get("class") == model.label
        and document["settings"].get("calibrated", False) == bool(plan.calibrated)
    ]
    return max(fitting, key=lambda found: found.settings["images"], default=None)


def measure_bound(
    model: Ddpm, name: str, source: ImageSource, folder: Path, split: Split, options: BoundOptions
) -> MeasuredBound:
    """Measure a bound as the options ask, and write it; a result of just this is read again."""
    images = FirstImages(source, options.images or IMAGES)
    plan = options.plan.resolved(model.diffusion, model.denoising_error is not None)
    path = options.data or model.config.data.path
    found = settings(model, images, plan, split, path, options.seed or 0)
    file = result_path("bpd", found, folder)
    written = file.with_name(f"{file.name}.json")
    for before, document in results_of(model, folder):
        if before == written:
            return MeasuredBound(_read(document), found, written)
    check_writable(folder)  # before the time is spent
    say(f"bits/dim of {len(images):,} images of {images.name}, {found['steps']:,} calls each")
    with progress_bar() as progress:
        bound = model.bound(
            images,
            plan=plan,
            seed=options.seed or 0,
            batch_size=options.batch_size,
            progress=progress,
        )
    write_bound(bound, model, Provenance.of(model, name, ()), found, file)
    return MeasuredBound(bound, found, written)


def _read(document: dict[str, Any]) -> Bound:
    """The bound that `write_bound` wrote."""
    total = np.array(document["per_image"])
    return Bound(
        total,
        np.full(len(total), document["prior"]),
        np.array(document["terms"]),
        np.array(document["xstart_mse"]),
        np.array(document["eps_mse"]),
        np.array(document["timesteps"], dtype=np.int64),
    )


def _plain(trajectory: object) -> object:
    """As JSON gives it back."""
    return list(trajectory) if isinstance(trajectory, tuple) else trajectory
