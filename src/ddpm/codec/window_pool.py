"""Images with a rounded x^_0, of which the windows that a last stage is trained on are drawn."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.codec.mixture import tables
from ddpm.codec.snapping import TRIES, UNIT, Grid
from ddpm.codec.windows import (
    ONE,
    OUTSIDE,
    PAST,
    REACH,
    Layout,
    features,
    gather_known,
    gather_past,
    timestep_features,
)
from ddpm.data.images import ImageFormat

Ints = NDArray[np.int64]

BATCH = 64  # images that enter the pool at once


class Pool:
    """Images and their rounded x^_0, of which windows are drawn; a new batch replaces the oldest.

    Args:
        image_format: of the images.
        grid: that x^_0 is rounded to, at random offsets.
        knots: of the network.
        size: images, a multiple of BATCH.
    """

    def __init__(self, image_format: ImageFormat, grid: Grid, knots: Ints, size: int) -> None:
        channels, height, width = image_format.shape
        self.format, self.grid, self.knots, self.size = image_format, grid, knots, size
        self.layout = Layout([(height, width)])
        places = self.layout.total
        self.planes = np.zeros((size, places, channels), dtype=np.int16)
        self.residuals = np.zeros((size, places, channels), dtype=np.int16)
        self.levels = np.zeros((size, height * width, channels), dtype=np.uint8)
        self.times = np.zeros((size, len(knots)), dtype=np.int64)

    def put(
        self,
        number: int,
        images: UInt8[Tensor, "b c h w"],
        xstart: Float[Tensor, "b c h w"],
        timestep: int,
        seed: int,
    ) -> None:
        """Put batch `number` in the place of the one `size` images ago."""
        values = xstart.double().cpu().numpy().reshape(-1)
        random = np.random.default_rng([seed, number])
        tries = random.integers(0, TRIES, self.grid.blocks(len(values)))
        count, channels = len(images), self.format.channels

        def rows(array: NDArray) -> NDArray:
            return array.reshape(count, channels, -1).transpose(0, 2, 1)

        centres = rows(self.grid.rounded(values, tries))
        levels = rows(images.numpy())
        residuals = tables(self.format.levels).values[levels] - centres
        for i, place in enumerate((number * BATCH + np.arange(count)) % self.size):
            self.planes[place] = self.layout.padded(centres[i], OUTSIDE)
            self.residuals[place] = self.layout.padded(residuals[i], 0)
            self.levels[place] = levels[i]
            self.times[place] = timestep_features(timestep, self.knots)

    def draw(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of random pixels: features, grey levels, and x^_0 in bytes."""
        image = random.integers(0, self.size, count)
        pixel = random.integers(0, self.layout.pixels, count)
        number = self.layout.order[pixel]
        corners = self.layout.corners[pixel] + image * self.layout.total
        strides = self.layout.strides[pixel]
        channels = self.format.channels
        found = np.empty((count, features(channels, len(self.knots))), dtype=np.float32)
        known = found.shape[1] - PAST * channels
        planes = self.planes.reshape(-1, channels)
        gather_known(planes, corners, strides, self.times[image], found[:, :known])
        gather_past(self.residuals.reshape(-1, channels), corners, strides, found[:, known:])
        centres = planes[corners + REACH * (strides + 1)]
        levels = torch.from_numpy(self.levels[image, number].astype(np.int64))
        return (
            torch.from_numpy(found).mul_(1 / ONE),
            levels,
            torch.from_numpy(centres).float() / UNIT,
        )
