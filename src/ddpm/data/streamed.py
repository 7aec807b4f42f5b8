"""Sets of encoded images: decoded into memory when small, image by image when big."""

from __future__ import annotations

import hashlib
import logging
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.cache import cache_folder
from ddpm.data.decode import BrokenImage, Decoded, decode_image, decode_many
from ddpm.data.images import EncodedImages, ImageFormat, ImageSource, MemoryImages
from ddpm.data.labels import labels_of, names_of
from ddpm.errors import DdpmError, check
from ddpm.runtime.atomic import atomically

log = logging.getLogger("ddpm")
MEMORY_LIMIT = 2 * 2**30  # bytes of pixels up to which a set is held in memory
PROBED = 200  # images of a streamed set that are decoded before it is accepted
MAX_BROKEN = 0.01  # share of a set


@dataclass
class StreamedImages:
    """A big set, decoded image by image when asked for, in any process.

    An image that cannot be decoded is named once, and the next good one in the set stands in for
    it, however far away: a run of days does not end for bad pictures among millions, and what an
    index shows stays a function of the data alone.
    """

    encoded: EncodedImages
    image_size: int
    channels: int
    _named: set[int] = field(default_factory=set, repr=False)

    @property
    def name(self) -> str:
        """For messages and model cards."""
        return self.encoded.name

    @property
    def format(self) -> ImageFormat:
        """Of every image."""
        return ImageFormat(self.channels, self.image_size, self.image_size)

    @property
    def labels(self) -> Tensor | None:
        """The class of each image, where it is known; of one that cannot be decoded its own."""
        return labels_of(self.encoded)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the set."""
        return names_of(self.encoded)

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """One image.

        Raises:
            DdpmError: its bytes cannot be read, or no image of the set can be decoded.
        """
        return self._shown(index)[0]

    def read_labelled(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int]:
        """One image, and the label of the image that is really shown.

        Raises:
            DdpmError: see `read`; or the set has no labels.
        """
        labels = self.labels
        check(labels is not None, f"{self.name} has no labels")
        image, shown = self._shown(index)
        return image, int(labels[shown])  # type: ignore[index]

    def _shown(self, index: int) -> tuple[Tensor, int]:
        """What an index shows: the image and the number of the image that it is."""
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            data = self.encoded[candidate]
            try:
                return decode_image(data, self.image_size, self.channels), candidate
            except BrokenImage as error:
                if candidate not in self._named:
                    self._named.add(candidate)
                    log.warning(
                        "%s cannot be used (%s); the next image is used instead",
                        self.encoded.describe(candidate),
                        error,
                    )
        raise DdpmError(f"no image of {self.name} can be decoded; copy the data again")

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return torch.stack([self.read(int(i)) for i in indices])


@dataclass
class Report:
    """What was found when a set was opened.

    Args:
        left_out: how many images are not used, by the reason.
        kept: the indices of those that are; None if not all were looked at.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    kept: list[int] | None = None


def fits_in_memory(count: int, image_size: int, channels: int, limit: int) -> bool:
    """Whether the pixels of `count` images take at most `limit` bytes."""
    return count * image_size**2 * channels <= limit


def open_encoded(
    encoded: EncodedImages,
    image_size: int,
    channels: int,
    memory_limit: int = MEMORY_LIMIT,
    report: Report | None = None,
) -> ImageSource:
    """The pixels of `encoded`: in memory, without what is broken, or streamed.

    Args:
        encoded: the images; with their `labels` and `class_names`, if it has some.
        image_size, channels: what they become.
        memory_limit: bytes of pixels up to which they are held in memory.
        report: is told what was found.

    Raises:
        DdpmError: there are none, or more than 1% are broken. Of a streamed set `PROBED` images
            are looked at, and all of them if 1% of those or more are broken.
    """
    count = len(encoded)
    check(count > 0, f"{encoded.name} holds no images")
    whole = fits_in_memory(count, image_size, channels, memory_limit)
    tried = count if whole else min(count, PROBED)
    # Not at even distances, between which a pattern could hide.
    looked_at = sorted(random.Random(0).sample(range(count), tried))
    decoded = decode_many(encoded, looked_at, image_size, channels)
    if not whole and decoded.broken and len(decoded.broken) >= MAX_BROKEN * tried:
        log.warning(
            "%d of %d images tried are broken; looking at all %s of %s",
            *(len(decoded.broken), tried, f"{count:,}", encoded.name),
        )
        tried = count
        decoded = _look_at_all(encoded, image_size, channels)
    _warn(decoded, tried, "skipped" if whole else "found")
    if report is not None:
        report.left_out.update(decoded.left_out)
        report.left_out["broken"] += len(decoded.broken)
        report.kept = decoded.kept if whole else None
    if not whole:
        return StreamedImages(encoded, image_size, channels)
    found = ", ".join(f"{count:,} {reason}" for reason, count in decoded.left_out.items())
    check(len(decoded.images) > 0, f"no image of {encoded.name} can be used: {found}")
    labels = labels_of(encoded)
    return MemoryImages(
        torch.stack(decoded.images),
        name=encoded.name,
        labels=None if labels is None else labels[decoded.kept],
        class_names=names_of(encoded),
    )


def _look_at_all(encoded: EncodedImages, image_size: int, channels: int) -> Decoded:
    """What is broken in a set that does not fit in memory."""
    everything = Decoded()
    for first in range(0, len(encoded), PROBED):
        part = range(first, min(first + PROBED, len(encoded)))
        decoded = decode_many(encoded, part, image_size, channels)
        everything.broken += decoded.broken
        everything.left_out.update(decoded.left_out)
    return everything


def _warn(decoded: Decoded, tried: int, verb: str) -> None:
    """Name the broken images in a file; refuse a set of which too many are."""
    broken = decoded.broken
    if not broken:
        return
    listed = _listed(broken)
    if len(broken) > MAX_BROKEN * tried:
        raise DdpmError(
            f"{len(broken):,} of {tried:,} images cannot be read, first {broken[0]}; "
            f"{listed} lists them all: repair or remove them"
        )
    log.warning(
        "%s %s of %s images that cannot be read, first %s; %s lists them all",
        *(verb, f"{len(broken):,}", f"{tried:,}", broken[0], listed),
    )


def _listed(broken: list[str]) -> Path:
    """A file with the names of all of them."""
    text = "\n".join(broken) + "\n"
    data = text.encode(errors="surrogateescape")
    stamp = hashlib.blake2b(data, digest_size=6).hexdigest()
    path = cache_folder() / f"broken-{stamp}.txt"
    try:
        atomically(path, lambda partial: partial.write_bytes(data))
    except DdpmError:  # no place for a cache
        path = Path(tempfile.gettempdir()) / path.name
        atomically(path, lambda partial: partial.write_bytes(data))
    return path
