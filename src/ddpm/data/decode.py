"""Encoded images to uint8 tensors: EXIF rotation, colour mode, resize, centre crop."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from ddpm.errors import DdpmError

T = TypeVar("T")
log = logging.getLogger("ddpm")
MAX_BROKEN = 0.01
# What Pillow raises on damaged data; anything else is our own mistake and must surface.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_image(source: Path | bytes, image_size: int, channels: int) -> UInt8[Tensor, "c h w"]:
    """One image file or its bytes as a square of `image_size` pixels.

    The shorter side is resized to `image_size` (bicubic) and the middle of the longer one kept.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        wide = np.asarray(image, dtype=np.float64) / 257
        image = Image.fromarray(wide.round().clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).reshape(image_size, image_size, channels)
    return pixels.permute(2, 0, 1).contiguous()


def map_skipping_broken(
    read: Callable[[T], Tensor], items: Sequence[T], describe: Callable[[T], str]
) -> list[Tensor]:
    """`read` every item in threads; name and skip what is broken, stop if that is over 1%."""

    def attempt(item: T) -> Tensor | str:
        try:
            return read(item)
        except BROKEN as error:
            return f"{describe(item)} ({type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, items))
    broken = [result for result in results if isinstance(result, str)]
    if len(broken) > MAX_BROKEN * len(items):
        raise DdpmError(
            f"{len(broken)} of {len(items)} images cannot be read, first {broken[0]}; "
            "repair or remove them"
        )
    for name in broken:
        log.warning("skipped a broken image: %s", name)
    if broken:
        log.warning("skipped %d of %d images", len(broken), len(items))
    return [result for result in results if isinstance(result, Tensor)]
