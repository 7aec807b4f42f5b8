"""What classical image files need for the same images: lossless sizes and lossy curves."""

from __future__ import annotations

import importlib.util
import io
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, features
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.errors import check

LONGEST = 16_383  # pixels a WebP may have on a side
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98)
SUBSAMPLINGS: dict[str, list[dict[str, object]]] = {  # colours at half the size, and at the whole
    "JPEG": [{"subsampling": 2}, {"subsampling": 0}],
    "AVIF": [{"subsampling": "4:2:0"}, {"subsampling": "4:4:4"}],
}
Pixels = UInt8[np.ndarray, "rows columns *channel"]


@dataclass(frozen=True)
class ClassicalFormat:
    """A format that Pillow writes.

    Args:
        pillow: its name there.
        lossless, lossy: options of either kind; None where there is no such kind.
    """

    pillow: str
    lossless: dict[str, object] | None
    lossy: dict[str, object] | None


FORMATS = {
    "PNG": ClassicalFormat("PNG", {"optimize": True}, None),
    "WebP": ClassicalFormat("WEBP", {"lossless": True, "quality": 100, "method": 6}, {"method": 6}),
    "JPEG XL": ClassicalFormat("JXL", {"lossless": True, "effort": 9}, {"effort": 7}),
    "JPEG": ClassicalFormat("JPEG", None, {"optimize": True}),
    "AVIF": ClassicalFormat("AVIF", None, {"speed": 4}),
}


def available_formats() -> dict[str, ClassicalFormat]:
    """Those of FORMATS that this installation can write."""
    missing = set()
    if importlib.util.find_spec("pillow_jxl") is None:
        missing.add("JPEG XL")
    else:
        importlib.import_module("pillow_jxl")
    if not features.check("avif"):
        missing.add("AVIF")
    return {name: kind for name, kind in FORMATS.items() if name not in missing}


def sheet(images: UInt8[Tensor, "n c h w"], image_format: ImageFormat) -> Pixels:
    """All images in as few columns as fit, levels spread over 0..255; empty places are black."""
    n, channels, height, width = images.shape
    check(channels in (1, 3), f"an image file needs 1 or 3 channels, got {channels}")
    columns = math.ceil(n * height / LONGEST)
    rows = math.ceil(n / columns)
    pixels = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    pixels[:n] = image_format.to_bytes(images.permute(0, 2, 3, 1).numpy())
    cells = pixels.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    picture = cells.reshape(rows * height, columns * width, channels)
    return picture[:, :, 0] if channels == 1 else picture


def write(pixels: Pixels, kind: ClassicalFormat, options: dict[str, object]) -> tuple[int, Pixels]:
    """(bytes of the file, what it decodes to)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    picture.save(buffer, format=kind.pillow, **options)
    size = buffer.tell()
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return size, np.array(decoded.convert(picture.mode))


def lossless_bytes(images: UInt8[Tensor, "n c h w"], image_format: ImageFormat, name: str) -> int:
    """Bytes of one lossless file of all the images.

    Raises:
        DdpmError: the file did not give the images back.
    """
    kind, pixels = available_formats()[name], sheet(images, image_format)
    size, back = write(pixels, kind, kind.lossless or {})
    check(np.array_equal(back, pixels), f"{name} was not lossless")
    return size


def lossy_files(pixels: Pixels, name: str) -> list[tuple[int, Pixels]]:
    """(bytes, what it decodes to) of a picture in a lossy format at every quality, in colour with
    the colours at half their size and at their whole; empty for a format without loss."""
    kind = available_formats()[name]
    if kind.lossy is None:
        return []
    colours = SUBSAMPLINGS.get(name, [{}]) if pixels.ndim == 3 else [{}]
    return [
        write(pixels, kind, {**kind.lossy, **colour, "quality": quality})
        for quality in QUALITIES
        for colour in colours
    ]


def lossy_curve(
    images: UInt8[Tensor, "n c h w"], image_format: ImageFormat, name: str
) -> list[tuple[int, float]]:
    """(bytes, mean squared error on 0..255) of one file of all the images: of `lossy_files`, by
    size, those that no smaller one is as close as."""
    pixels = sheet(images, image_format)
    points = [
        (size, float(np.square(back.astype(float) - pixels).mean()))
        for size, back in lossy_files(pixels, name)
    ]
    best: list[tuple[int, float]] = []
    for size, mse in sorted(points):
        if not best or mse < best[-1][1]:
            best.append((size, mse))
    return best
