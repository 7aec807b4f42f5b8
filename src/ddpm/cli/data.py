"""The images that a command works on."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.config import DataConfig
from ddpm.data import ImageSource, open_data
from ddpm.data.open import Split
from ddpm.data.streamed import MEMORY_LIMIT
from ddpm.errors import check
from ddpm.model import Ddpm


def open_split(data: DataConfig, split: Split) -> ImageSource:
    """The images that a configuration names."""
    return open_data(data.path, split, image_size=data.image_size, channels=data.channels)


def open_for(model: Ddpm, path: str | None, split: Split) -> ImageSource:
    """Images of a model's format: at `path`, or those that it was trained on.

    Raises:
        DdpmError: they cannot be found, or do not have the model's format.
    """
    expected = model.format
    check(
        expected.height == expected.width,
        f"images are read as squares, and this model expects {expected}; measure it from Python",
    )
    path = path or model.config.data.path
    check(
        path is not None,
        f"this model does not say where its images ({model.history.data}) are; set data.path",
    )
    source = open_data(path, split, image_size=expected.height, channels=expected.channels)
    check(
        source.format == expected,
        f"{source.name} has images of {source.format}, but the model expects {expected}",
    )
    return source


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
