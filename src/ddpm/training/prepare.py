"""What a run begins with: a fresh state, the weights of a model, or its own newest checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace

from ddpm.config import Config
from ddpm.data.images import ImageSource
from ddpm.errors import DdpmError, check
from ddpm.loading import load
from ddpm.registry import qualified_name
from ddpm.runs.folder import RunFolder
from ddpm.runtime import parallel
from ddpm.runtime.atomic import write_text
from ddpm.runtime.device import best_device
from ddpm.training.state import TrainingState
from ddpm.training.step import Loss, recompute_activations


def prepare_run(
    config: Config, images: ImageSource, run: RunFolder, resume: bool, loss: Loss | None = None
) -> TrainingState:
    """The state to start from: fresh, or the newest good checkpoint of `run`.

    Raises:
        DdpmError: the run exists and `resume` is off, or the other way round; or they do not fit;
            or the configuration cannot be stored; or there is no room or no permission to write.
    """
    check(
        isinstance(images, ImageSource),
        f"a {type(images).__name__} is no data source: it needs name, format, __len__ and "
        "__getitem__ (ddpm.ImageSource); ddpm.MemoryImages makes one of a uint8 tensor",
    )
    batch, processes = config.training.batch_size, parallel.size()
    parts = processes * config.training.accumulate
    check(
        batch % parts == 0,
        f"a batch of {batch} cannot be cut into {parts} equal parts (processes: {processes}, "
        f"micro-batches of each: {config.training.accumulate}); change training.batch_size",
    )
    config = with_facts(config, images)
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    name = None if loss is None else qualified_name(loss)
    state = TrainingState(config, images.format, best_device(), images.name, name)
    if resume:
        state.restore(run)
    elif run.checkpoints():
        raise DdpmError(f"{run.path} already holds a run; resume it, or choose another folder")
    elif config.training.start_from is not None:
        state.start_from(load(config.training.start_from, "cpu"))
    recompute_activations(state.network, config.training.activation_checkpointing)
    if parallel.is_main():
        write_text(run.config, text)
        run.prepare(state.nbytes)
    return state


def with_facts(config: Config, images: ImageSource) -> Config:
    """The configuration with the size and channels that square images really have."""
    channels, height, width = images.format.shape
    if height != width or channels not in (1, 3):
        return config
    return replace(config, data=replace(config.data, image_size=height, channels=channels))
