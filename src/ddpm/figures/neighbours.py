"""Nearest neighbours in the training set: are the samples new, or remembered?"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.figures.grid import image_grid


def neighbours_figure(
    images: UInt8[Tensor, "n c h w"],
    training: UInt8[Tensor, "m c h w"],
    image_format: ImageFormat,
    k: int = 3,
) -> Image.Image:
    """A column an image: the sample on top, its k nearest training images below."""
    indices, _ = nearest_neighbours(images, training, k)
    rows = [images, *(training[indices[:, j]] for j in range(k))]
    return image_grid(torch.cat(rows), image_format, columns=len(images))
