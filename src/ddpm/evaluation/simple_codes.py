"""What images cost without a model: bits/dim of simple codes, to hold a likelihood against."""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.errors import check


def uniform_bpd(grey_levels: int) -> float:
    """Every level equally likely."""
    return math.log2(grey_levels)


def histogram_bpd(
    training: UInt8[Tensor, "m c h w"], images: UInt8[Tensor, "n c h w"], grey_levels: int
) -> float:
    """Each pixel coded by its own histogram over the training images, one count added to each."""
    levels = training.long().permute(1, 2, 3, 0)  # [c, h, w, m]
    counts = torch.ones(*levels.shape[:3], grey_levels, dtype=torch.double)
    counts.scatter_add_(-1, levels, torch.ones(levels.shape, dtype=torch.double))
    bits = -(counts / counts.sum(-1, keepdim=True)).log2()  # [c, h, w, levels]
    expanded = bits.expand(len(images), *bits.shape)
    return float(expanded.gather(-1, images.long().unsqueeze(-1)).mean())


def context_bpd(
    training: UInt8[Tensor, "m c h w"], images: UInt8[Tensor, "n c h w"], grey_levels: int
) -> float:
    """Each pixel coded by a histogram of its context over the training images.

    The context is the left and the upper neighbour in the same channel (level 0 beyond the border)
    and which pixel it is. So narrow a context has often not been seen, so the counts are backed
    off: to those of the two neighbours at any pixel, and these to every level being equally likely.
    At each stage the less exact distribution weighs as much as one count for each level, which is
    the smoothing of `histogram_bpd`. Nothing is fitted to any image but these counts.
    """
    probability = np.full(tuple(images.shape), 1 / grey_levels)
    levels, seen_levels = images.long().numpy(), training.long().numpy()
    seen_contexts = contexts(training, grey_levels)
    for asked, seen in zip(contexts(images, grey_levels), seen_contexts, strict=True):
        both = times_seen(seen * grey_levels + seen_levels, asked * grey_levels + levels)
        of_context = times_seen(seen, asked)
        probability = (both + grey_levels * probability) / (of_context + grey_levels)
    return float(-np.log2(probability).mean())


def contexts(images: UInt8[Tensor, "n c h w"], grey_levels: int) -> Iterator[NDArray[np.int64]]:
    """Of each pixel, a number for its channel and neighbours, and one for its place too."""
    levels = images.long().numpy()
    left, upper = np.zeros_like(levels), np.zeros_like(levels)
    left[..., 1:], upper[..., 1:, :] = levels[..., :-1], levels[..., :-1, :]
    neighbours = left * grey_levels + upper
    _, channels, height, width = levels.shape
    channel = np.arange(channels)[:, None, None]
    pixel = np.arange(channels * height * width).reshape(channels, height, width)
    for position in (channel, pixel):
        yield position * grey_levels**2 + neighbours


def times_seen(seen: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each of the numbers `asked` occurs in `seen`."""
    values, counts = np.unique(seen, return_counts=True)
    found = np.searchsorted(values, asked).clip(max=len(values) - 1)
    return np.where(values[found] == asked, counts[found], 0)


def xz_bpd(images: UInt8[Tensor, "n c h w"]) -> float:
    """All pixels, a byte each and in order, as one .xz file of the strongest preset, whole file."""
    pixels = images.contiguous().numpy().tobytes()
    packed = lzma.compress(pixels, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    check(lzma.decompress(packed) == pixels, "xz was not lossless")
    return 8 * len(packed) / images.numel()
