"""Images in rows and columns, enlarged pixel by pixel, always written as PNG."""

from __future__ import annotations

import io
import math

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat

GAP = 1  # pixels of the original images between two of them
SIDE = 32  # smaller images are enlarged to about that many pixels at least
WIDTH, MOST = 512, 32  # small pictures are enlarged to about this many pixels, at most 32 times


def image_grid(
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A picture of all the images.

    Args:
        images: grey levels.
        image_format: of the images.
        columns: images a row; makes the grid about square by default.
        scale: enlargement; by default a whole factor that makes the picture about 512 wide, and no
            image smaller than about 32.
    """
    pixels = image_format.to_display(images)
    n, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8
    )
    for i, image in enumerate(pixels):
        y, x = i // columns * (height + GAP) + GAP, i % columns * (width + GAP) + GAP
        canvas[y : y + height, x : x + width] = image
    picture = Image.fromarray(canvas)
    wide = min(max(1, round(WIDTH / max(picture.size))), MOST)
    scale = scale or max(wide, round(SIDE / height))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def to_picture(figure: Figure) -> Image.Image:
    """Render a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer).convert("RGB")
