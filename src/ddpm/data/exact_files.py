"""Image files to grey levels and back, with nothing lost: no resizing, no change of colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.decode import BROKEN
from ddpm.data.folder import SUFFIXES, list_images
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError, check
from ddpm.runtime.atomic import atomically

MODES = {1: "L", 3: "RGB"}


def read_images(path: Path, image_format: ImageFormat) -> list[UInt8[Tensor, "c _h _w"]]:
    """One image, or all of a folder in the order of their names, as a model's grey levels.

    Args:
        path: a file or a folder.
        image_format: of the model; the images may have any size.

    Raises:
        DdpmError: nothing there, unreadable, of other colours, or of other grey levels.
    """
    check(path.exists(), f"{path} does not exist")
    paths = list_images(path) if path.is_dir() else [path]
    check(
        len(paths) > 0,
        f"{path} holds no images; it needs files ending in {', '.join(sorted(SUFFIXES))}",
    )
    return [read_image(file, image_format) for file in paths]


def read_image(path: Path, image_format: ImageFormat) -> UInt8[Tensor, "c _h _w"]:
    """See `read_images`."""
    channels = image_format.channels
    if channels not in MODES:
        raise DdpmError(f"no image file has the {channels} channels of this model")
    try:
        with Image.open(path) as image:
            image.load()
    except BROKEN as error:
        raise DdpmError(f"{path} cannot be read as an image ({error})") from error
    check(
        image.mode == MODES[channels],
        f"{path} has colour mode {image.mode}, and this model expects {MODES[channels]}; "
        "convert it first",
    )
    values = np.array(image).reshape(image.height, image.width, -1)
    levels = image_format.from_bytes(values)
    check(
        np.array_equal(image_format.to_bytes(levels), values),
        f"{path} uses more than the {image_format.levels} evenly spaced grey levels that this "
        "model uses; other values cannot be stored exactly",
    )
    return torch.from_numpy(levels).permute(2, 0, 1).contiguous()


def write_images(
    images: Sequence[UInt8[Tensor, "c _h _w"]], path: Path, image_format: ImageFormat
) -> None:
    """A .png, or a folder of them for other names."""
    for i, image in enumerate(images):
        values = image_format.to_bytes(image.permute(1, 2, 0).numpy())
        picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        save_png(picture, path if path.suffix == ".png" else path / f"{i:06d}.png")


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG, atomically."""
    atomically(path, lambda partial: picture.save(partial, format="PNG"))
