"""What images cost without a model: bits/dim of simple codes, to hold a likelihood against."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.errors import check


def uniform_bpd(grey_levels: int) -> float:
    """Every level equally likely."""
    return math.log2(grey_levels)


def histogram_bpd(
    training: UInt8[Tensor, "m c h w"], images: UInt8[Tensor, "n c h w"], grey_levels: int
) -> float:
    """Each pixel coded by its own histogram over the training images, one count added to each."""
    one_hot = torch.nn.functional.one_hot(training.long(), grey_levels)
    counts = one_hot.sum(dim=0).double() + 1
    bits = -(counts / counts.sum(-1, keepdim=True)).log2()  # [c, h, w, levels]
    expanded = bits.expand(len(images), *bits.shape)
    return float(expanded.gather(-1, images.long().unsqueeze(-1)).mean())


def file_bpd(images: UInt8[Tensor, "n c h w"], file_format: str) -> float:
    """One lossless PNG or WebP of all the images stacked into a column, whole file."""
    n, channels, height, width = images.shape
    check(channels in (1, 3), f"an image file needs 1 or 3 channels, got {channels}")
    pixels = images.permute(0, 2, 3, 1).reshape(n * height, width, channels).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    buffer = io.BytesIO()
    if file_format == "WEBP":
        picture.save(buffer, format=file_format, lossless=True, quality=100, method=6)
    else:
        picture.save(buffer, format=file_format, optimize=True)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        back = np.array(decoded.convert(picture.mode))
    check(np.array_equal(back, np.array(picture)), f"{file_format} was not lossless")
    return 8 * buffer.getbuffer().nbytes / images.numel()
