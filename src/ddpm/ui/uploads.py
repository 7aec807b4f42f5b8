"""From the bytes that somebody hands in to images of a model, read by the library's own loader."""

from __future__ import annotations

import io
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.decode import BrokenImage, Picture, Quiet, open_picture, plain, upright
from ddpm.data.exact_files import losses, to_levels
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError, check

LARGEST = 256 * 256  # pixels of an image that the page compresses
LARGEST_PHOTO = 64_000_000  # pixels of a photo that is cut and scaled to a model's size


def base_name(name: str) -> str:
    """The last part of a file's name, short enough for a message, with nothing that cannot be
    seen."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(c for c in last if c.isprintable())[:80] or "the file"


def exact(data: bytes, name: str, image_format: ImageFormat) -> UInt8[Tensor, "c _h _w"]:
    """An image of any size, up to LARGEST pixels, with nothing lost.

    Args:
        data: the whole file.
        name: of it, for messages.
        image_format: of the model.

    Raises:
        DdpmError: it is no image, too large, or cannot be kept exactly.
    """
    check(image_format.channels in (1, 3), f"no image file has {image_format.channels} channels")
    picture = _opened(data, name, LARGEST, "use `ddpm compress` for larger ones")
    lost = losses(picture, image_format)
    check(not lost, f"{name} cannot be kept exactly ({', '.join(lost)}); convert it first")
    return to_levels(picture, image_format)


def fitted(data: bytes, name: str, image_format: ImageFormat) -> tuple[UInt8[Tensor, "c h w"], str]:
    """An image of a model's own size, cut and scaled where need be; and words about what was done.

    Raises:
        DdpmError: it is no image, or too large.
    """
    check(image_format.channels in (1, 3), f"no image file has {image_format.channels} channels")
    picture = _opened(data, name, LARGEST_PHOTO, "make it smaller first")
    image = upright(picture.image)
    size = f"{image.width}x{image.height}"
    levels, whole = fit(image, picture.bits, image_format)
    if whole:
        return levels, f"{name}, as it is"
    return (
        levels,
        f"{name}, {size} pixels, cut and scaled to {image_format.width}x{image_format.height}",
    )


def fit(
    image: Image.Image, bits: int, image_format: ImageFormat
) -> tuple[UInt8[Tensor, "c h w"], bool]:
    """A picture cut around its middle and scaled to a format, and whether it had its size."""
    mode = "L" if image_format.channels == 1 else "RGB"
    picture = plain(image, bits, mode)
    size = (image_format.width, image_format.height)
    whole = picture.size == size
    if not whole:
        share = min(picture.width / size[0], picture.height / size[1])
        width, height = share * size[0], share * size[1]
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (left, top, left + width, top + height)
        picture = picture.resize(size, Image.Resampling.LANCZOS, box=box)
    untold = Image.fromarray(np.asarray(picture))  # its metadata would have it turned once more
    return to_levels(Picture(untold, 8, 1), image_format), whole


def _opened(data: bytes, name: str, most: int, advice: str) -> Picture:
    """A picture, whose size is looked at before its pixels are.

    Raises:
        DdpmError: it is no image, or has more than `most` pixels.
    """
    try:
        with Quiet.context(), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Exception:  # `open_picture` says what it is
        width, height = 0, 0
    check(
        width * height <= most,
        f"{name} has {width:,}x{height:,} pixels, and this page takes {most:,} at most; {advice}",
    )
    try:
        return open_picture(data)
    except BrokenImage as error:
        raise DdpmError(f"{name} cannot be read as an image ({error})") from error
