"""Grids with words at their rows and columns, and several of them in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.figures.grid import GAP, image_grid

WIDE, CELL = 960, 96  # pixels: about the most of a picture, and of an image that is enlarged
TEXT, SMALLEST = 14, 8  # pixels of a letter
MARGIN, BETWEEN = 6, 16  # pixels around words, and between two grids


def enlargement(image_format: ImageFormat, columns: int) -> int:
    """The whole factor by which images of a grid that many columns wide are enlarged."""
    natural = columns * (image_format.width + GAP) + GAP
    return max(1, min(WIDE // natural, CELL // max(image_format.height, image_format.width)))


def labelled_grid(
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
    columns: int,
    *,
    left: Sequence[str] = (),
    top: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """A grid with words.

    Args:
        images: grey levels, row by row.
        image_format: of the images.
        columns: images a row.
        left: a label for each row, or none.
        top: a label for each column, or none; long ones are written smaller.
        scale: enlargement; what `enlargement` says by default.
    """
    scale = scale or enlargement(image_format, columns)
    grid = image_grid(images, image_format, columns=columns, scale=scale)
    across, down = (scale * (side + GAP) for side in (image_format.width, image_format.height))
    margin = max((round(_font(TEXT).getlength(text)) for text in left), default=-2 * MARGIN)
    x, y = margin + 2 * MARGIN, (TEXT + 2 * MARGIN) if top else 0
    picture = Image.new("RGB", (x + grid.width, y + grid.height), "white")
    picture.paste(grid, (x, y))
    draw = ImageDraw.Draw(picture)
    for row, text in enumerate(left):
        middle = y + scale * GAP + row * down + scale * image_format.height // 2
        draw.text((x - MARGIN, middle), text, "black", _font(TEXT), anchor="rm")
    for column, text in enumerate(top):
        middle = x + scale * GAP + column * across + scale * image_format.width // 2
        draw.text((middle, y - MARGIN), text, "black", _fitting(text, across), anchor="ms")
    return picture


def titled(picture: Image.Image, title: str) -> Image.Image:
    """A picture with a line in its middle above it."""
    height = TEXT + 2 * MARGIN
    high = Image.new("RGB", (picture.width, picture.height + height), "white")
    high.paste(picture, (0, height))
    font = _fitting(title, picture.width)
    middle = (picture.width // 2, height - MARGIN)
    ImageDraw.Draw(high).text(middle, title, "black", font, anchor="ms")
    return high


def stacked(pictures: Sequence[Image.Image], gap: int = BETWEEN) -> Image.Image:
    """One below the other, their right sides in line."""
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    whole, y = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        whole.paste(picture, (width - picture.width, y))
        y += picture.height + gap
    return whole


def beside(pictures: Sequence[Image.Image], gap: int = BETWEEN) -> Image.Image:
    """One beside the other, their lower sides in line."""
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    whole, x = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        whole.paste(picture, (x, height - picture.height))
        x += picture.width + gap
    return whole


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The letters of the plots."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _fitting(text: str, width: int) -> ImageFont.FreeTypeFont:
    """The largest letters in which a text is not wider than that."""
    sizes = range(TEXT, SMALLEST, -1)
    return next((_font(s) for s in sizes if _font(s).getlength(text) <= width), _font(SMALLEST))
