"""The curves of a run in a project of Weights & Biases, for those who have it."""

from __future__ import annotations

import importlib
import uuid

from ddpm.config import Config
from ddpm.errors import DdpmError
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import Curves
from ddpm.runtime.atomic import write_text


def open_wandb(project: str, run: RunFolder, config: Config) -> Curves:
    """The run of this folder in `project`: a new one, or the one it had before it was resumed.

    Raises:
        DdpmError: wandb is not installed, or cannot begin (no account, no network).
    """
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise DdpmError(
            f"training.wandb_project needs wandb ({error}); pip install wandb, or leave it out: "
            "TensorBoard gets the same curves"
        ) from error
    if not run.wandb_id.is_file():
        write_text(run.wandb_id, uuid.uuid4().hex)
    try:
        opened = wandb.init(
            project=project,
            name=run.path.name,
            id=run.wandb_id.read_text(),
            dir=str(run.path),
            resume="allow",
            config=config.to_dict(),
        )
    except wandb.Error as error:
        raise DdpmError(
            f"Weights & Biases did not start ({error}); run `wandb login`, set WANDB_MODE=offline, "
            "or leave out training.wandb_project"
        ) from error
    # Steps that a resumed run takes again would be refused if they were wandb's own axis.
    opened.define_metric("*", step_metric="step")
    return opened
