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
SIDE = 32  # images smaller than this are enlarged by a whole factor


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
        scale: enlargement; brings small images to about 32 pixels by default.
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
    scale = scale or max(1, round(SIDE / height))
    picture = Image.fromarray(canvas)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def to_picture(figure: Figure) -> Image.Image:
    """Render a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer).convert("RGB")
