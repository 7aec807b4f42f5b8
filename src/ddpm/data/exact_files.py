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
from ddpm.data.images import to_bytes
from ddpm.errors import DdpmError, check
from ddpm.model import DataFacts
from ddpm.runtime.atomic import atomically

MODES = {1: "L", 3: "RGB"}


def read_images(path: Path, facts: DataFacts) -> list[UInt8[Tensor, "c _h _w"]]:
    """One image, or all of a folder in the order of their names, as a model's grey levels.

    Raises:
        DdpmError: nothing there, unreadable, of other colours, or of other grey levels.
    """
    check(path.exists(), f"{path} does not exist")
    paths = list_images(path) if path.is_dir() else [path]
    check(
        len(paths) > 0,
        f"{path} holds no images; it needs files ending in {', '.join(sorted(SUFFIXES))}",
    )
    return [read_image(file, facts) for file in paths]


def read_image(path: Path, facts: DataFacts) -> UInt8[Tensor, "c _h _w"]:
    """See `read_images`."""
    mode = MODES[facts.shape[0]]
    try:
        with Image.open(path) as image:
            image.load()
    except BROKEN as error:
        raise DdpmError(f"{path} cannot be read as an image ({error})") from error
    check(
        image.mode == mode,
        f"{path} has colour mode {image.mode}, and this model takes {mode}; convert it first",
    )
    values = np.array(image).reshape(image.height, image.width, -1)
    levels = np.round(values * ((facts.grey_levels - 1) / 255)).astype(np.uint8)
    check(
        np.array_equal(to_bytes(levels, facts.grey_levels), values),
        f"{path} uses more than the {facts.grey_levels} evenly spaced grey levels that this model "
        "knows; nothing but those can be kept exactly",
    )
    return torch.from_numpy(levels).permute(2, 0, 1).contiguous()


def write_images(images: Sequence[UInt8[Tensor, "c _h _w"]], path: Path, facts: DataFacts) -> None:
    """A .png, or a folder of them for other names."""
    for i, image in enumerate(images):
        values = to_bytes(image.permute(1, 2, 0).numpy(), facts.grey_levels)
        picture = Image.fromarray(values[:, :, 0] if facts.shape[0] == 1 else values)
        save_png(picture, path if path.suffix == ".png" else path / f"{i:06d}.png")


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG, atomically."""
    atomically(path, lambda partial: picture.save(partial, format="PNG"))
