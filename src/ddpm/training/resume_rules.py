"""Which settings may change when a run is resumed: some never, some with a word, some freely."""

from __future__ import annotations

import logging
from pathlib import Path

from ddpm.config import Config
from ddpm.errors import check

# With another of these it would be another run under the same name.
FIXED = {"data.image_size", "data.channels", "data.flip"} | {
    f"training.{name}" for name in ("seed", "batch_size", "loss", "time_sampling")
}
# These decide when to stop and what to write, not what is learned. A data set may have moved;
# that it is the same one is checked by its name.
FREE = {"data.path"} | {
    f"training.{name}"
    for name in (
        "save_every",
        "sample_every",
        "log_every",
        "max_minutes",
        "wandb",
        "start_from",
        "activation_checkpointing",
        "accumulate",
    )
}

log = logging.getLogger("ddpm")


def check_same_run(stored: Config, wanted: Config, path: Path) -> None:
    """Compare the settings a run was started with to those it is to go on with.

    Args:
        stored: what the checkpoint at `path` says.
        wanted: what the user asks for now.

    Raises:
        DdpmError: they describe another run. A change that is allowed but alters what will be
            learned (the learning rate, say) is logged instead.
    """
    for group in ("network", "diffusion"):
        check(
            getattr(stored, group) == getattr(wanted, group),
            f"{path} was trained with other {group} settings; "
            "resume with the preset and options that the run was started with",
        )
    before, after = _flat(stored), _flat(wanted)
    changed = [name for name in before if before[name] != after[name] and name not in FREE]
    if wanted.training.lr_decay == "constant" and "training.steps" in changed:
        changed.remove("training.steps")  # under a cosine they set the rate as well
    for name in changed:
        check(
            name not in FIXED,
            f"{path} was trained with {name} {before[name]}, and {after[name]} would make it "
            "another run; resume with the settings it was started with or choose another --out",
        )
        log.warning(
            "%s is %s from now on and was %s, so the run ends elsewhere than it would have",
            name,
            after[name],
            before[name],
        )


def _flat(config: Config) -> dict[str, object]:
    """`group.setting` to value, of the data and the training."""
    groups = config.to_dict()
    return {f"{g}.{k}": value for g in ("data", "training") for k, value in groups[g].items()}
