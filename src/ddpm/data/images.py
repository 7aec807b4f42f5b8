"""Images as uint8 [b, c, h, w] outside the model and float in [-1, 1] inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Shape = tuple[int, int, int]


@runtime_checkable
class ImageSource(Protocol):
    """A set of images of one shape that can be read by index."""

    grey_levels: int

    @property
    def name(self) -> str:
        """For messages and model cards."""
        ...

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        """The images at a long vector of indices."""
        ...


@runtime_checkable
class EncodedImages(Protocol):
    """A set of images as their encoded bytes (PNG, JPEG, WebP, ...), to be had in any process."""

    @property
    def name(self) -> str:
        """For messages and model cards."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> bytes:
        """One image; a `DdpmError` if its bytes cannot be had."""
        ...

    def describe(self, index: int) -> str:
        """What a message calls the image: its file, its key, its row."""
        ...


@dataclass
class MemoryImages:
    """A small set, held as one uint8 tensor, on any device.

    Args:
        images: pixels 0..grey_levels-1.
        grey_levels: how many values a pixel can take: 256 usually, 17 for the digits.
        name: for messages and model cards.
        labels: class of each image, where known.
    """

    images: UInt8[Tensor, "n c h w"]
    grey_levels: int = 256
    name: str = "images"
    labels: Tensor | None = None

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return self.images[indices]

    def to(self, device: torch.device) -> MemoryImages:
        """The same set on another device."""
        return MemoryImages(self.images.to(device), self.grey_levels, self.name, self.labels)


def to_unit_range(images: UInt8[Tensor, "*dims"], grey_levels: int) -> Float[Tensor, "*dims"]:
    """uint8 grey levels to float32 in [-1, 1]."""
    return images.float() * (2.0 / (grey_levels - 1)) - 1.0


def from_unit_range(x: Float[Tensor, "*dims"], grey_levels: int) -> UInt8[Tensor, "*dims"]:
    """Float to the nearest grey level; what lies outside [-1, 1] becomes the nearest end."""
    scaled = (x.clamp(-1, 1) + 1) * ((grey_levels - 1) / 2)
    return scaled.round().to(torch.uint8)


def to_bytes(levels: np.ndarray, grey_levels: int) -> np.ndarray:
    """Grey levels 0..grey_levels-1 spread over 0..255, uint8."""
    return np.round(levels * (255 / (grey_levels - 1))).astype(np.uint8)
