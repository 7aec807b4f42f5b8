"""Encoded images to uint8 tensors: EXIF rotation, centre crop, colours, resize."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from ddpm.data.images import EncodedImages
from ddpm.errors import DdpmError

MAX_BROKEN = 0.01
# What Pillow raises on damaged data; anything else is a bug and must surface.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def decode_image(data: bytes, image_size: int, channels: int) -> UInt8[Tensor, "c h w"]:
    """One encoded image as a square of `image_size` pixels.

    The middle square of whole pixels, as wide as the shorter side, is cut out and, if it has
    another size, resized with Pillow's Lanczos filter, whose kernel widens with the reduction, so
    that nothing aliases. This is how the paper's LSUN images were made (the authors read the
    output of `dataset_tool.py` of StyleGAN2: the same crop, PIL.Image.ANTIALIAS). Transparent
    parts are shown on white.

    Raises:
        one of `BROKEN`: the bytes are no image, or a damaged one.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
    if square.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        wide = np.asarray(square, dtype=np.float64) / 257
        square = Image.fromarray(wide.round().clip(0, 255).astype(np.uint8))
    if square.has_transparency_data:
        square = square.convert("RGBA")
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
    square = square.convert("L" if channels == 1 else "RGB")
    if side != image_size:
        square = square.resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).reshape(image_size, image_size, channels)
    return pixels.permute(2, 0, 1).contiguous()


def decode_many(
    encoded: EncodedImages, indices: Sequence[int], image_size: int, channels: int
) -> tuple[list[Tensor], list[str]]:
    """Images decoded in threads: those that can be read, in order, and the names of the others.

    Raises:
        DdpmError: more than 1% cannot be read.
    """

    def attempt(index: int) -> Tensor | str:
        try:
            return decode_image(encoded[index], image_size, channels)
        except BROKEN as error:
            return f"{encoded.describe(index)} ({type(error).__name__})"

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, indices))
    broken = [result for result in results if isinstance(result, str)]
    if len(broken) > MAX_BROKEN * len(indices):
        tried = " that were tried" if len(indices) < len(encoded) else ""
        raise DdpmError(
            f"{len(broken)} of {len(indices)} images{tried} cannot be read, first {broken[0]}; "
            "repair or remove them"
        )
    return [result for result in results if isinstance(result, Tensor)], broken
