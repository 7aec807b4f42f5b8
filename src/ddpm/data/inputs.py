"""Images as a person passes them: paths, pictures, arrays or tensors, one or many."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.data.decode import Picture, orientation
from ddpm.data.exact_files import losses, read_images, to_levels
from ddpm.data.images import ImageFormat, ImageSource, Indexed
from ddpm.errors import DdpmError, check
from ddpm.runtime.paths import user_path

ImageLike: TypeAlias = Any
"""A path (of an image or a folder of them), a PIL image, a uint8 array [h, w], [h, w, c] or
[n, h, w, c], a uint8 tensor [c, h, w] or [n, c, h, w], or a sequence of any of these."""

KNOWN = (
    "give paths, PIL images, uint8 arrays [h, w, c] or [n, h, w, c], or uint8 tensors [c, h, w] or "
    "[n, c, h, w]"
)


def as_images(images: ImageLike, image_format: ImageFormat) -> list[Tensor]:
    """Images of any size as a model's grey levels, with nothing lost.

    Args:
        images: see `ImageLike`. Arrays and tensors hold grey levels of the model.
        image_format: of the model.

    Returns:
        uint8 tensors [c, h, w].

    Raises:
        DdpmError: something else, or images that the model cannot take.
    """
    if isinstance(images, str | os.PathLike):
        return read_images(user_path(images), image_format).images
    if isinstance(images, Image.Image):
        return [_from_picture(images, image_format)]
    if isinstance(images, np.ndarray):
        images = _from_array(images, image_format)
    if isinstance(images, Tensor):
        check(images.ndim in (3, 4), f"images have shape {tuple(images.shape)}; {KNOWN}")
        images = images[None] if images.ndim == 3 else images
        for image in images:
            _check(image, image_format)
        return [image.cpu() for image in images]
    if isinstance(images, Sequence):
        return [image for part in images for image in as_images(part, image_format)]
    raise DdpmError(f"a {type(images).__name__} is no image; {KNOWN}")


def as_indexed(images: ImageLike | Indexed, image_format: ImageFormat) -> Indexed:
    """Images of a model's own size, to be read by index; a data source is returned as it is.

    Raises:
        DdpmError: see `as_images`; or another size.
    """
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, Tensor) and images.ndim == 4:
        image_format.check_shape(images)
        return images
    if hasattr(images, "__getitem__") and not isinstance(
        images, str | np.ndarray | Sequence | Tensor | Mapping
    ):
        return images  # somebody's own
    found = as_images(images, image_format)
    for image in found:
        check(
            tuple(image.shape) == image_format.shape,
            f"this model expects images of shape {image_format.shape}, got {tuple(image.shape)}; "
            "ddpm.open_data crops and resizes them",
        )
    return torch.stack(found) if found else torch.zeros(0, *image_format.shape, dtype=torch.uint8)


def _check(image: Tensor, image_format: ImageFormat) -> None:
    """Refuse a tensor [c, h, w] that is no image of the model's colours and grey levels."""
    image_format.check_type(image)
    check(
        image.shape[0] == image_format.channels,
        f"this model expects images of {image_format.channels} channels, got shape "
        f"{tuple(image.shape)}",
    )
    check(image.numel() > 0, f"an image without pixels, of shape {tuple(image.shape)}")
    image_format.check_levels(int(image.max()))


def _from_array(array: np.ndarray, image_format: ImageFormat) -> Tensor:
    """An array with its channels last, or without, as [n, c, h, w]."""
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[None]
    check(array.ndim == 4, f"images have shape {array.shape}; {KNOWN}")
    check(
        array.dtype == np.uint8 and array.shape[3] == image_format.channels,
        f"this model expects uint8 arrays of {image_format.channels} channels (the last axis), got "
        f"{array.dtype} {array.shape}",
    )
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def _from_picture(image: Image.Image, image_format: ImageFormat) -> Tensor:
    """A PIL image, as it would be read from a file."""
    try:
        wide = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        image.load()
    except (OSError, ValueError, AttributeError) as error:  # as of a closed one
        raise DdpmError(f"the picture cannot be read ({error})") from error
    bits = 16 if wide or image.mode.startswith("I") else 8
    picture = Picture(image, bits, getattr(image, "n_frames", 1), orientation(image) != 1)
    lost = losses(picture, image_format)
    check(not lost, f"the picture cannot be kept exactly ({', '.join(lost)}); convert it first")
    return to_levels(picture, image_format)
