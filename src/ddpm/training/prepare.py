"""What a run begins with: a fresh state, the weights of a model, or its own newest checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace

from ddpm.config import Config
from ddpm.data.content import data_facts
from ddpm.data.images import ImageSource
from ddpm.data.labels import check_labels, listed, names_of
from ddpm.errors import DdpmError, check
from ddpm.loading import load
from ddpm.registry import qualified_name
from ddpm.runs.folder import RunFolder
from ddpm.runtime import parallel
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.device import best_device
from ddpm.training.state import TrainingState
from ddpm.training.step import Loss, recompute_activations


def prepare_run(
    config: Config,
    images: ImageSource,
    run: RunFolder,
    resume: bool,
    loss: Loss | None = None,
    held_out: ImageSource | None = None,
    other_images: bool = False,
) -> TrainingState:
    """The state to start from: fresh, or the newest good checkpoint of `run`; see `train`.

    Raises:
        DdpmError: the run exists and `resume` is off, or the other way round; or they do not fit;
            or the configuration cannot be stored; or there is no room or no permission to write.
    """
    check(
        isinstance(config, Config),
        f"a {type(config).__name__} is no configuration; ddpm.get_preset(name) gives one",
    )
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
    check(len(images) > 0, f"{images.name} holds no images")
    config = with_facts(config, images)
    try:
        str(run.path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise DdpmError(
            f"TensorBoard cannot write below {run.path!s}, whose name is not UTF-8; choose another "
            "folder"
        ) from error
    facts = data_facts(images, held_out)
    text = to_json({**config.to_dict(), "images": asdict(facts)}, indent=2) + "\n"
    name = None if loss is None else qualified_name(loss)
    state = TrainingState(config, images.format, best_device(), facts, name)
    if resume:
        state.restore(run, other_images)
    elif run.checkpoints():
        raise DdpmError(f"{run.path} already holds a run; resume it, or choose another folder")
    elif config.training.start_from is not None:
        state.start_from(load(config.training.start_from, "cpu"))
    recompute_activations(state.network, config.training.activation_checkpointing)
    if parallel.is_main():
        run.prepare(state.nbytes)
        write_text(run.config, text)
    return state


def with_facts(config: Config, images: ImageSource) -> Config:
    """The configuration with the size and channels that square images really have, and the names
    of the classes, if it is one of a conditional model.

    Raises:
        DdpmError: the images do not have the classes that the configuration asks for.
    """
    channels, height, width = images.format.shape
    data = config.data
    if height == width and channels in (1, 3):
        data = replace(data, image_size=height, channels=channels)
    if config.classes:
        check_labels(images, config.classes, data.class_names)
        names = names_of(images) or data.class_names
        check(
            data.class_names in ((), names),
            f"data.class_names is {listed(data.class_names)}, but the classes of {images.name} are "
            f"{listed(names)}; use images with the same classes, or leave data.class_names out",
        )
        data = replace(data, class_names=names)
    return replace(config, data=data)
