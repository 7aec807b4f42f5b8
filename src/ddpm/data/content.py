"""Images known by what they show, not by their names: held out, counted twice, recognised again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from ddpm.data.cache import cached
from ddpm.data.decode import BrokenImage, open_picture, plain, upright
from ddpm.data.images import EncodedImages, ImageSource, MemoryImages
from ddpm.data.splits import Split
from ddpm.errors import check

SAMPLED = 16  # images that a set is known by
TOLERANCE = 1 / 512  # of the range of grey levels: what decoders of JPEG may differ by
UNKNOWN = np.uint64(2**64 - 1)  # key of an image that cannot be read: never held out


def pixel_key(pixels: UInt8[np.ndarray, "h w 3"]) -> np.uint64:
    """A number, evenly distributed, that depends on the pixels of an image alone."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def pixel_keys(count: int, read: Callable[[int], np.ndarray]) -> NDArray[np.uint64]:
    """The keys of images that `read` gives, [h, w, 3]; in threads."""

    def key(index: int) -> np.uint64:
        try:
            return pixel_key(read(index))
        except BrokenImage:
            return UNKNOWN

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(key, range(count))), dtype=np.uint64)


def keys_of(encoded: EncodedImages, files: Sequence[Path]) -> NDArray[np.uint64]:
    """The keys of encoded images at their own size, found once and kept while `files` stay."""

    def read(index: int) -> np.ndarray:
        picture = open_picture(encoded[index])
        return np.asarray(plain(upright(picture.image), picture.bits, "RGB"))

    def build(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, pixel_keys(len(encoded), read))

    found: NDArray[np.uint64] = np.load(cached(f"pixel-keys-{len(encoded)}", files, build))
    return found


def divide_by_content(
    keys: NDArray[np.uint64], fraction: float, split: Split, name: str
) -> list[int]:
    """The indices of a split: about `fraction` of the images are held out.

    An image's side depends on its pixels alone: other images and other names do not move it.

    Raises:
        DdpmError: one of the sides would be empty.
    """
    held_out = keys < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    count = int(held_out.sum())
    check(
        0 < count < len(keys),
        f"data.hold_out {fraction:g} would hold out {count:,} of the {len(keys):,} images of "
        f"{name}; take another share",
    )
    return np.flatnonzero(held_out if split == "test" else ~held_out).tolist()


@dataclass
class Chosen:
    """Some of a set of encoded images."""

    encoded: EncodedImages
    indices: list[int]

    @property
    def name(self) -> str:
        """Of the set."""
        return self.encoded.name

    @property
    def labels(self) -> torch.Tensor | None:
        """The class of each, where the set knows it."""
        labels = getattr(self.encoded, "labels", None)
        return None if labels is None else labels[self.indices]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the set."""
        return getattr(self.encoded, "class_names", ())

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:
        return self.encoded[self.indices[index]]

    def describe(self, index: int) -> str:
        """See `EncodedImages`."""
        return self.encoded.describe(self.indices[index])


def copies(training: ImageSource, held_out: ImageSource, batch_size: int = 256) -> int:
    """How many held-out images have exactly the pixels of an image that is trained on."""

    def digests(source: ImageSource) -> list[bytes]:
        found = []
        for rows in torch.arange(len(source)).split(batch_size):
            for image in source[rows].cpu().numpy():
                found.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        return found

    known = set(digests(training))
    return sum(digest in known for digest in digests(held_out))


@dataclass(frozen=True)
class DataFacts:
    """What a set of training images is known by.

    Args:
        name: of the set.
        count: of its images.
        held_out: images that are kept out of training and measured on.
        shape: (channels, height, width).
        levels: grey levels.
        sample: mean grey levels of some images, spread over the set.
    """

    name: str
    count: int
    held_out: int
    shape: tuple[int, ...]
    levels: int
    sample: tuple[float, ...]

    def same_images(self, other: DataFacts) -> bool:
        """Whether both are of the same images in the same order, whatever they are called."""
        tolerance = TOLERANCE * (self.levels - 1)
        return (
            (self.count, tuple(self.shape), self.levels)
            == (other.count, tuple(other.shape), other.levels)
            and len(self.sample) == len(other.sample)
            and all(abs(a - b) <= tolerance for a, b in zip(self.sample, other.sample, strict=True))
        )


def data_facts(images: ImageSource, held_out: ImageSource | None = None) -> DataFacts:
    """Look at a set."""
    count = len(images)
    picked = torch.arange(min(count, SAMPLED)) * count // min(count, SAMPLED)
    means = images[picked].flatten(1).double().mean(1).tolist()
    return DataFacts(
        images.name,
        count,
        0 if held_out is None else len(held_out),
        tuple(images.format.shape),
        images.format.levels,
        tuple(round(mean, 3) for mean in means),
    )


def in_memory(source: ImageSource) -> bool:
    """Whether looking at every image of a set costs nothing."""
    return isinstance(source, MemoryImages)
