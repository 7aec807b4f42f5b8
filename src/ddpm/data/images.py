"""Images as uint8 [b, c, h, w] outside the model and float in [-1, 1] inside."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.errors import check

Shape = tuple[int, int, int]
USUAL = 32 * 32  # pixels of the images that default batch sizes are made for


@dataclass(frozen=True)
class ImageFormat:
    """What all images of a set, and of a model, have in common.

    Args:
        channels: 1 for grey, 3 for colour; any number is fine for the maths.
        height, width: in pixels.
        levels: grey levels a pixel can take, 2..256: 256 usually, 17 for the embedded digits.

    Raises:
        DdpmError: a number out of range.
    """

    channels: int
    height: int
    width: int
    levels: int = 256

    def __post_init__(self) -> None:
        check(
            min(self.shape) >= 1 and 2 <= self.levels <= 256,
            f"images need at least one channel and pixel and 2..256 grey levels, got {self}",
        )

    @property
    def shape(self) -> Shape:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width} with {self.levels} grey levels"

    def batch(self, most: int) -> int:
        """How many images to take at a time where nobody says: `most` of up to 32x32 pixels, and of
        larger ones as many as have no more pixels than those, at least 1."""
        return max(1, min(most, most * USUAL // (self.height * self.width)))

    def check(self, images: Tensor) -> None:
        """Refuse anything but uint8 images of this format, [n, c, h, w].

        Raises:
            DdpmError: another type, another shape, or a grey level that does not exist.
        """
        self.check_shape(images)
        if images.numel():
            self.check_levels(int(images.max()))

    def check_shape(self, images: Tensor, what: str = "this model") -> None:
        """The part of `check` that looks at no pixel.

        Args:
            images: uint8 [n, c, h, w].
            what: expects them, for the message.
        """
        self.check_type(images, what)
        check(
            images.ndim == 4 and tuple(images.shape[1:]) == self.shape,
            f"{what} expects images of shape {self.shape}, got {tuple(images.shape[1:])}",
        )

    def check_type(self, images: Tensor, what: str = "this model") -> None:
        """Refuse anything but uint8: other types may hold anything, such as [-1, 1]."""
        hint = (
            "; format.from_unit(x) makes them of x in [-1, 1]" if images.is_floating_point() else ""
        )
        check(
            images.dtype == torch.uint8,
            f"{what} expects images of type uint8, got {images.dtype}{hint}",
        )

    def check_levels(self, highest: int, what: str = "this model") -> None:
        """Refuse a grey level that does not exist."""
        check(
            highest < self.levels,
            f"{what} expects grey levels 0..{self.levels - 1}, but the images have {highest}",
        )

    def to_unit(self, images: UInt8[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
        """Grey levels to float32 in [-1, 1]."""
        return images.float() * (2.0 / (self.levels - 1)) - 1.0

    def from_unit(self, x: Float[Tensor, "*dims"]) -> UInt8[Tensor, "*dims"]:
        """Float to the nearest grey level; what lies outside [-1, 1] becomes the nearest end."""
        scaled = (x.clamp(-1, 1) + 1) * ((self.levels - 1) / 2)
        return scaled.round().to(torch.uint8)

    def to_bytes(self, images: UInt8[np.ndarray, "*dims"]) -> UInt8[np.ndarray, "*dims"]:
        """Grey levels spread over 0..255."""
        return _looked_up(images, 255 / (self.levels - 1))

    def from_bytes(self, values: UInt8[np.ndarray, "*dims"]) -> UInt8[np.ndarray, "*dims"]:
        """The grey levels nearest to values on 0..255; undoes `to_bytes`."""
        return _looked_up(values, (self.levels - 1) / 255)

    def to_display(self, images: UInt8[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n h w 3"]:
        """What a screen shows: RGB on 0..255."""
        pixels = self.to_bytes(images.cpu().numpy()).transpose(0, 2, 3, 1)
        return np.broadcast_to(pixels, (*pixels.shape[:3], 3)) if pixels.shape[3] == 1 else pixels


def _looked_up(values: UInt8[np.ndarray, "*dims"], scale: float) -> UInt8[np.ndarray, "*dims"]:
    """The values times `scale`, rounded, without anything larger than bytes."""
    table = np.round(np.arange(256) * scale).clip(0, 255).astype(np.uint8).tobytes()
    found = bytearray(np.ascontiguousarray(values, np.uint8)).translate(table)
    return np.ndarray(values.shape, np.uint8, found)


def byte_mse(
    a: UInt8[Tensor, "*dims"], b: UInt8[Tensor, "*dims"], image_format: ImageFormat
) -> float:
    """Mean squared error of grey levels, on the scale of 0..255."""
    difference = (a.double() - b.double()) * (255 / (image_format.levels - 1))
    return float(difference.square().mean())


def unit_to_byte_rmse(mse: Float[np.ndarray, "*dims"]) -> Float[np.ndarray, "*dims"]:
    """Root mean squared errors on 0..255 from mean squared errors on [-1, 1]."""
    return 127.5 * np.sqrt(mse)


def psnr(mse: float) -> float:
    """dB for a mean squared error on 0..255."""
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


@runtime_checkable
class Indexed(Protocol):
    """Images that can be read by index: a uint8 tensor [n, c, h, w], or any `ImageSource`."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The images at a long vector of indices."""
        ...


@runtime_checkable
class ImageSource(Protocol):
    """A set of images that can be read by index: what training needs.

    A source may also have `to(device)`, which returns it on a device (see `OnDevice`), or
    `read(index)`, which reads a single image in a worker process (see `SingleReads`). One that
    knows classes has `labels`, a long vector of one for each image, and may have `class_names`, a
    tuple of strings.
    """

    @property
    def name(self) -> str:
        """For messages and model cards."""
        ...

    @property
    def format(self) -> ImageFormat:
        """Of every image."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        """The images at a long vector of indices."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A source that can lie on a GPU as a whole."""

    def to(self, device: torch.device) -> ImageSource:
        """The same set on that device."""
        ...


@runtime_checkable
class SingleReads(Protocol):
    """A source whose images are read one by one, ahead of time, by worker processes."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """One image; called in any process."""
        ...


@runtime_checkable
class LabelledReads(Protocol):
    """A source of single reads that may show another image than the one that was asked for."""

    def __len__(self) -> int: ...

    def read_labelled(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int]:
        """One image and its own label; called in any process."""
        ...


@runtime_checkable
class EncodedImages(Protocol):
    """A set of images as encoded bytes (PNG, JPEG, WebP, ...), readable from any process.

    One that knows classes has `labels` and perhaps `class_names`, as an `ImageSource` has.
    """

    @property
    def name(self) -> str:
        """For messages and model cards."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> bytes:
        """One image; a `DdpmError` if its bytes cannot be read."""
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
        labels: class of each image, where known, long, [n].
        class_names: of all classes, in the order of the labels, where known.
    """

    images: UInt8[Tensor, "n c h w"]
    grey_levels: int = 256
    name: str = "images"
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()

    @property
    def format(self) -> ImageFormat:
        """Of every image."""
        channels, height, width = self.images.shape[1:]
        return ImageFormat(channels, height, width, self.grey_levels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return self.images[indices]

    def to(self, device: torch.device) -> MemoryImages:
        """The same set on another device; the labels stay where they are."""
        return replace(self, images=self.images.to(device))


@dataclass
class FirstImages:
    """The first `count` images of a set, read as the set itself reads them."""

    source: ImageSource
    count: int

    @property
    def name(self) -> str:
        """Of the set."""
        return self.source.name

    @property
    def format(self) -> ImageFormat:
        """Of the set."""
        return self.source.format

    @property
    def labels(self) -> Tensor | None:
        """The class of each, where the set knows it."""
        labels: Tensor | None = getattr(self.source, "labels", None)
        return None if labels is None else labels[: self.count]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the set."""
        return getattr(self.source, "class_names", ())

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return self.source[indices]
