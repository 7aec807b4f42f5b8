"""Images of any number and size as parts that are coded one after another in bounded memory.

An image is cut into blocks, all but the last ones as large as BLOCK allows; a block is what the
last stage sees as a whole. A block, or consecutive small ones, make a part: a diffusion path of all
their tiles, then their exact pixels. So a beginning shows a large picture as a whole, and of many
small ones each is read for the price of its part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ddpm.codec.tiles import Size, grid
from ddpm.data.images import Shape

BLOCK = 1024  # pixels along a side of a block, or one tile if that is larger
PART = 512  # along that of a square whose tiles are the most that small blocks share


@dataclass(frozen=True)
class Block:
    """A rectangle of an image.

    Args:
        image: its number.
        top, left: where it begins.
        size: (height, width).
    """

    image: int
    top: int
    left: int
    size: Size

    @property
    def place(self) -> tuple[slice, slice]:
        """Of its rows and columns in the image."""
        height, width = self.size
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def blocks(number: int, size: Size, shape: Shape) -> Iterator[Block]:
    """Those of an image, in reading order.

    Args:
        number: of the image.
        size: its height and width.
        shape: of the model's images, whose tiles no block cuts.
    """
    sides = [max(BLOCK // tile, 1) * tile for tile in shape[1:]]
    for top in range(0, size[0], sides[0]):
        for left in range(0, size[1], sides[1]):
            here = min(sides[0], size[0] - top), min(sides[1], size[1] - left)
            yield Block(number, top, left, here)


def tiles_of_a_part(shape: Shape) -> int:
    """The most tiles of the model's size that a part of several blocks has."""
    return max(PART // shape[1], 1) * max(PART // shape[2], 1)


def tiles_of_a_block(shape: Shape) -> int:
    """The most that a part of one block has."""
    return max(BLOCK // shape[1], 1) * max(BLOCK // shape[2], 1)


def parts(sizes: Iterable[Size], shape: Shape) -> Iterator[list[Block]]:
    """Consecutive blocks together, as many as have the tiles of a part; a larger one alone.

    Args:
        sizes: of all images.
        shape: of the model's images.
    """
    most = tiles_of_a_part(shape)
    found: list[Block] = []
    tiles = 0
    for number, size in enumerate(sizes):
        for block in blocks(number, size, shape):
            rows, columns = grid(block.size, shape)
            if found and tiles + rows * columns > most:
                yield found
                found, tiles = [], 0
            found.append(block)
            tiles += rows * columns
    if found:
        yield found
