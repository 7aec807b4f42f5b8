"""The settings that a run was started with, for whoever goes on with it."""

from __future__ import annotations

import json

from ddpm.config import Config
from ddpm.errors import DdpmError, check
from ddpm.runs.folder import RunFolder, load_newest
from ddpm.runtime.paths import exists


def stored_config(run: RunFolder) -> Config:
    """The settings of a run: its config.json, or what its newest checkpoint says where that is
    missing or damaged.

    Raises:
        DdpmError: there is no run, it was never trained here, or a kind is not registered.
    """
    check(
        exists(run.path) and bool(run.checkpoints()),
        f"{run.path} holds no checkpoint to resume from; is it the folder of a training run?",
    )
    check(
        run.checkpoints()[-1] != run.checkpoint(0),
        f"{run.path} was imported, so there is no training to resume; begin one with its weights: "
        f"--training.start-from {run.path}",
    )
    try:
        stored = json.loads(run.config.read_text(encoding="utf-8"))
        groups = {key: stored[key] for key in ("data", "network", "diffusion", "training")}
        return Config.from_dict(groups)
    except DdpmError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        _, _, metadata = load_newest(run.path)
        return Config.from_dict(metadata["config"])
