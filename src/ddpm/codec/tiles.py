"""Images of any size as tiles of the model's size, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor

from ddpm.data.images import Shape

Size = tuple[int, int]


def grid(size: Size, shape: Shape) -> tuple[int, int]:
    """(rows, columns) of tiles that cover an image of that size."""
    return -(-size[0] // shape[1]), -(-size[1] // shape[2])


def cut(
    images: Sequence[UInt8[Tensor, "c _h _w"]], shape: Shape
) -> tuple[UInt8[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
    """The tiles of all images in reading order, and which of their pixels are real.

    Beyond the border of an image its last row and column are repeated.
    """
    tiles: list[Tensor] = []
    masks: list[Tensor] = []
    _, height, width = shape
    for image in images:
        size = (image.shape[1], image.shape[2])
        rows, columns = grid(size, shape)
        y = torch.arange(rows * height)
        x = torch.arange(columns * width)
        padded = image[:, y.clamp(max=size[0] - 1)][:, :, x.clamp(max=size[1] - 1)]
        real = (y < size[0])[:, None] & (x < size[1])[None, :]
        for plane, out in ((padded, tiles), (real[None], masks)):
            blocks = plane.reshape(-1, rows, height, columns, width).permute(1, 3, 0, 2, 4)
            out.append(blocks.flatten(0, 1))
    return torch.cat(tiles), torch.cat(masks)[:, 0]


def masks(sizes: Sequence[Size], shape: Shape) -> Bool[Tensor, "n h w"]:
    """Which pixels of the tiles are real, from the sizes alone."""
    return cut([torch.zeros(1, *size, dtype=torch.uint8) for size in sizes], shape)[1]


def join(
    tiles: Shaped[Tensor, "n c h w"], sizes: Sequence[Size], shape: Shape
) -> list[Shaped[Tensor, "c _h _w"]]:
    """The images that `cut` was given."""
    images, first = [], 0
    for size in sizes:
        rows, columns = grid(size, shape)
        blocks = tiles[first : first + rows * columns].unflatten(0, (rows, columns))
        first += rows * columns
        image = blocks.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
        images.append(image[:, : size[0], : size[1]])
    return images
