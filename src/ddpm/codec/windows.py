"""What a pixel's distribution is computed from: its neighbourhood, and the order of the pixels.

A window is 7x7 pixels. Of x^_0 all of it is known; of the residuals (pixels minus x^_0) the three
rows above and the three pixels to the left. A pixel therefore needs rows above up to three columns
to its right, and all pixels with the same x + 4 y, a *wave*, can be computed at once.

All features are integers, `ONE` is a real 1, and they are clamped to +-LIMIT.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddpm.codec.snapping import UNIT
from ddpm.runtime.compiled import compiled

Ints = NDArray[np.int64]
Planes = NDArray[np.int16]
Sizes = Sequence[tuple[int, int]]

REACH = 3
SIDE = 2 * REACH + 1
AREA = SIDE * SIDE
PAST = REACH * SIDE + REACH  # pixels of a window that are known before its middle
ONE = 16 * UNIT  # 16 bytes are a real 1
LIMIT = 4095
OUTSIDE = -32768  # where there is no pixel


def features(channels: int, knots: int) -> int:
    """How many a pixel has: x^_0, what exists, the timestep; then the residuals."""
    return AREA * (channels + 1) + knots + PAST * channels


class Layout:
    """Where the pixels of images of any sizes lie, with a border of REACH around each image.

    Args:
        sizes: height and width of each image.

    Attributes:
        order: [n], numbers of all pixels in reading order, wave by wave.
        corners: [n], place of the first pixel of each one's window, in that order.
        strides: [n], from a row of the window to the next.
        waves: [w + 1], where in the order each wave begins.
        total: places in all.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = [(int(height), int(width)) for height, width in sizes]
        corners, strides, waves = [], [], []
        self.bases, self.total = [], 0
        for height, width in self.sizes:
            stride = width + 2 * REACH
            y, x = np.arange(height)[:, None], np.arange(width)
            corners.append((self.total + y * stride + x).reshape(-1))
            waves.append((x + (REACH + 1) * y).reshape(-1))
            strides.append(np.full(height * width, stride))
            self.bases.append(self.total)
            self.total += stride * (height + 2 * REACH)
        number = np.concatenate([np.zeros(0, np.int64), *waves])
        self.order = np.argsort(number, kind="stable")
        self.corners = np.concatenate([np.zeros(0, np.int64), *corners])[self.order]
        self.strides = np.concatenate([np.zeros(0, np.int64), *strides])[self.order]
        changes = np.flatnonzero(np.diff(number[self.order])) + 1
        self.waves = np.concatenate([[0], changes, [len(self.order)]])

    @property
    def pixels(self) -> int:
        """How many there are."""
        return len(self.order)

    def padded(self, rows: NDArray[np.int64], outside: int) -> Planes:
        """[total, channels], values of all pixels, [n, channels] in reading order, with borders."""
        planes = np.full((self.total, rows.shape[1]), outside, dtype=np.int16)
        done = 0
        for base, (height, width) in zip(self.bases, self.sizes, strict=True):
            stride, area = width + 2 * REACH, height * width
            plane = planes[base : base + stride * (height + 2 * REACH)]
            inner = plane.reshape(height + 2 * REACH, stride, -1)[REACH:, REACH:]
            inner[:height, :width] = rows[done : done + area].reshape(height, width, -1)
            done += area
        return planes


@compiled
def gather_known(
    planes: Planes, corners: Ints, strides: Ints, timestep: Ints, out: NDArray
) -> None:
    """The features that both sides know from the start.

    Args:
        planes: [total, channels], rounded x^_0, OUTSIDE where there is none.
        corners, strides: [n], of the windows.
        timestep: [n or 1, knots], its features.
        out: [n, AREA (channels + 1) + knots], filled in: x^_0 around the pixel less the pixel's
            own, the pixel's own from the middle of the scale, ONE where there is a pixel.
    """
    channels, first = planes.shape[1], AREA * planes.shape[1]
    for i in range(len(corners)):
        middle = corners[i] + REACH * strides[i] + REACH
        for dy in range(SIDE):
            for dx in range(SIDE):
                place, column = corners[i] + dy * strides[i] + dx, dy * SIDE + dx
                exists = planes[place, 0] != OUTSIDE
                out[i, first + column] = ONE if exists else 0
                for c in range(channels):
                    value = 0
                    if place == middle:
                        value = int(planes[place, c]) - 255 * UNIT // 2
                    elif exists:
                        value = int(planes[place, c]) - int(planes[middle, c])
                    out[i, column * channels + c] = min(max(value, -LIMIT), LIMIT)
        row = min(i, len(timestep) - 1)
        for k in range(timestep.shape[1]):
            out[i, first + AREA + k] = timestep[row, k]


@compiled
def gather_past(residuals: Planes, corners: Ints, strides: Ints, out: NDArray) -> None:
    """The residuals before each pixel: `out`, [n, PAST channels], is filled in."""
    channels = residuals.shape[1]
    for i in range(len(corners)):
        column = 0
        for dy in range(REACH + 1):
            place = corners[i] + dy * strides[i]
            for dx in range(SIDE if dy < REACH else REACH):
                for c in range(channels):
                    value = int(residuals[place + dx, c])
                    out[i, column] = min(max(value, -LIMIT), LIMIT)
                    column += 1


def timestep_features(timestep: int, knots: Ints) -> Ints:
    """[1, knots], which sum to ONE: how near a timestep is to the knots around it.

    Args:
        timestep: of the whole chain; before the first knot it counts as that, and after the last.
        knots: rising timesteps.
    """
    found = np.zeros((1, len(knots)), dtype=np.int64)
    right = int(np.searchsorted(knots, timestep))
    if right in (0, len(knots)):
        found[0, min(right, len(knots) - 1)] = ONE
        return found
    low, high = int(knots[right - 1]), int(knots[right])
    found[0, right] = ONE * (timestep - low) // (high - low)
    found[0, right - 1] = ONE - found[0, right]
    return found
