"""What may change when a run is resumed: some settings never, some with a notice, some freely."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ddpm.config import Config
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.runs.checkpoint import Tensors
from ddpm.runs.history import History

# With another of these it would be another run under the same name.
FIXED = {
    f"data.{name}" for name in ("image_size", "channels", "flip", "hold_out", "class_names")
} | {
    f"training.{name}"
    for name in (*("seed", "batch_size", "loss", "optimizer", "time_sampling", "stratified_time"),)
}
# These decide when to stop and what to write, not what is learned. A data set may have moved;
# that it is the same one is checked by its content.
FREE = {"data.path"} | {
    f"training.{name}"
    for name in (
        "save_every",
        "sample_every",
        "log_every",
        "max_minutes",
        "wandb_project",
        "start_from",
        "activation_checkpointing",
        "accumulate",
    )
}

log = logging.getLogger("ddpm")


def check_same_data(
    stored: ImageFormat,
    history: History,
    wanted: ImageFormat,
    now: History,
    path: Path,
    other_images: bool = False,
) -> None:
    """Compare the images and the loss of a run with those it is to go on with.

    Args:
        stored, history: what the checkpoint at `path` says.
        wanted, now: what the run has now.
        other_images: go on with other images of the same format; it is logged.

    Raises:
        DdpmError: they differ.
    """
    check(
        stored == wanted,
        f"{path} was trained on images of {stored}, but these have {wanted}",
    )
    then, these = history.facts, now.facts
    if then is None or these is None:  # a checkpoint of an older version knows a name only
        same = history.data.removesuffix(" (train)") == now.data.removesuffix(" (train)")
        was, are = f"'{history.data}'", f"'{now.data}'"
        if history.step < 90_000:
            log.warning("the decay of the averages rises with the step, which it did not before")
    else:
        same = then.same_images(these)
        was = f"{then.count:,} images ('{then.name}')"
        are = f"{these.count:,} ('{these.name}')" + (
            "" if then.count != these.count else " that look different"
        )
    check(
        same or other_images,
        f"{path} was trained on {was}, and these are {are}; resume with the same images, or accept "
        "the change with --other-images (other_images=True)",
    )
    if not same:
        log.warning("the run was trained on %s so far, and goes on with %s", was, are)
    check(
        history.loss == now.loss,
        f"{path} was trained with the loss {history.loss or 'of its configuration'}, and now it is "
        f"{now.loss or 'that of the configuration'}; resume with the same loss",
    )


def check_same_betas(tensors: Tensors, config: Config, path: Path) -> None:
    """Refuse to go on with other forward variances than those that are stored, unless they are
    learned.

    Raises:
        DdpmError: they differ.
    """
    betas = config.diffusion.build().schedule.betas
    stored = tensors.get("diffusion.betas")  # not in format 1
    learned = getattr(config.diffusion, "schedule", None) == "learned"
    same = (
        learned
        or stored is None
        or (stored.shape == betas.shape and np.allclose(stored.numpy(), betas, rtol=1e-12, atol=0))
    )
    check(same, f"{path} was trained with other betas; resume with the same schedule")


def check_same_run(
    stored: Config, wanted: Config, path: Path, precision: str | None = None
) -> None:
    """Compare the settings a run was started with to those it is to go on with.

    Args:
        stored: what the checkpoint at `path` says.
        wanted: what the user asks for now.
        precision: in which it was trained so far, which auto keeps to.

    Raises:
        DdpmError: they describe another run. A change that is allowed but alters what will be
            learned (the learning rate, say) is logged instead.
    """
    for group in ("network", "diffusion"):
        check(
            getattr(stored, group) == getattr(wanted, group),
            f"{path} was trained with other {group} settings; "
            "resume with the settings that the run was started with",
        )
    before, after = _flat(stored), _flat(wanted)
    changed = [name for name in before if before[name] != after[name] and name not in FREE]
    if wanted.training.lr_decay == "constant" and "training.steps" in changed:
        changed.remove("training.steps")  # under a cosine they set the rate as well
    if wanted.training.precision == "auto" and precision and "training.precision" in changed:
        changed.remove("training.precision")
    for name in changed:
        check(
            name not in FIXED,
            f"{path} was trained with {name} {before[name]}, and {after[name]} would make it "
            "another run; resume with the settings it was started with or choose another folder",
        )
        log.warning(
            "%s is %s from now on and was %s, so the result differs from that of the original run",
            name,
            after[name],
            before[name],
        )


def _flat(config: Config) -> dict[str, object]:
    """`group.setting` to value, of the data and the training."""
    groups = config.to_dict()
    return {f"{g}.{k}": value for g in ("data", "training") for k, value in groups[g].items()}
