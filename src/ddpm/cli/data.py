"""The images that a command works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.config import DataConfig
from ddpm.data import ImageSource, open_data
from ddpm.data.content import DataFacts, data_facts
from ddpm.data.open import NoHeldOut, Split
from ddpm.data.streamed import MEMORY_LIMIT
from ddpm.errors import DdpmError, check
from ddpm.model import Ddpm


def open_split(data: DataConfig, split: Split) -> ImageSource:
    """The images that a configuration names."""
    return open_data(
        data.path,
        split,
        image_size=data.image_size,
        channels=data.channels,
        hold_out=data.hold_out,
    )


def open_for(model: Ddpm, path: str | None, split: Split) -> ImageSource:
    """Images of a model's format: at `path`, or those that it was trained on.

    Raises:
        DdpmError: they cannot be found, do not have the model's format, or, where no path is
            given, what lies where the training images were is something else now.
    """
    expected, data = model.format, model.config.data
    check(
        expected.height == expected.width,
        f"images are read as squares, and this model expects {expected}; measure it from Python",
    )
    check(bool(path or data.path), without_images(model, "set --data"))

    def opened(which: Split, hold_out: float) -> ImageSource:
        return open_data(
            path or data.path,
            which,
            image_size=expected.height,
            channels=expected.channels,
            hold_out=hold_out,
        )

    facts, share = model.history.facts, data.hold_out
    if share and path is not None:  # the share is that of the training images alone
        share = share if _are_training_images(opened, share, facts) else 0.0
    try:
        source = opened(split, share)
    except NoHeldOut as error:
        if model.history.origin is None:
            raise
        raise NoHeldOut(  # there is no training whose data.hold_out could be said
            f"{path or data.path} has no held-out images; put some into a folder test in it, or "
            "name others with --data; --split train measures on all of it"
        ) from error
    check(
        source.format == expected,
        f"{source.name} has images of {source.format}, but the model expects {expected}",
    )
    if path is None and facts is not None:
        training = source if split == "train" else opened("train", share)
        check(
            facts.same_images(data_facts(training)),
            f"the images in {data.path} are not those that this model was trained on; if they are "
            "meant, name them with --data",
        )
    return source


def without_images(model: Ddpm, way_out: str) -> str:
    """A sentence about a model that does not say where its images are, which ends in a way out."""
    if came_from_elsewhere(model):
        return (
            "this model came from elsewhere and does not say what images it was trained on; "
            f"measure it on them once (`ddpm measure RUN --data FOLDER`), or {way_out}"
        )
    return f"this model does not say where its images ({model.history.data}) are; {way_out}"


def came_from_elsewhere(model: Ddpm) -> bool:
    """Whether a model says nothing of its images: not what they are, nor where."""
    return not (model.history.facts or model.history.data or model.config.data.path)


def adopt(model: Ddpm, path: str, training: ImageSource) -> None:
    """Have a model that came from elsewhere say that it was trained on some images.

    Args:
        model: its history and its configuration are changed; its file is not.
        path: of the images, as it was typed.
        training: what is there.

    Raises:
        DdpmError: the images that are held out there cannot be read.
    """
    try:
        held_out = open_for(model, path, "test")
    except NoHeldOut:
        held_out = None
    facts = data_facts(training, held_out)
    model.history = replace(model.history, data=training.name, facts=facts)
    model.config = replace(model.config, data=replace(model.config.data, path=path))


def _are_training_images(
    opened: Callable[[Split, float], ImageSource], share: float, facts: DataFacts | None
) -> bool:
    """Whether what is left when a share is held out are the images that a model was trained on."""
    if facts is None:
        return False
    try:
        return facts.same_images(data_facts(opened("train", share)))
    except DdpmError:
        return False


def as_tensor(images: ImageSource) -> UInt8[Tensor, "n c h w"]:
    """All images of a set at once.

    Raises:
        DdpmError: they would take more memory than a set may.
    """
    channels, height, width = images.format.shape
    size = len(images) * channels * height * width
    check(
        size <= MEMORY_LIMIT,
        f"{len(images):,} images of {images.name} do not fit in memory; use fewer (--images)",
    )
    return images[torch.arange(len(images))]
