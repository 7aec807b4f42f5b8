"""Sets of encoded images: decoded into memory when small, image by image when big."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.decode import BROKEN, decode_image, decode_many
from ddpm.data.images import EncodedImages, ImageFormat, ImageSource, MemoryImages
from ddpm.errors import DdpmError, check

log = logging.getLogger("ddpm")
MEMORY_LIMIT = 2 * 2**30  # bytes of pixels up to which a set is held in memory
PROBED = 200  # images of a streamed set that are decoded before it is accepted
SUBSTITUTES = 3  # images in a row that may be tried in place of one


@dataclass
class StreamedImages:
    """A big set, decoded image by image when asked for, in any process.

    An image that cannot be decoded is named once, and the next one in the set stands in for it:
    a run of days does not end for one bad picture in millions, and what an index shows stays a
    function of the data alone.
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

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """One image.

        Raises:
            DdpmError: its bytes cannot be read, or it and the next ones are all broken.
        """
        for candidate in range(index, index + SUBSTITUTES):
            candidate %= len(self)
            data = self.encoded[candidate]
            try:
                return decode_image(data, self.image_size, self.channels)
            except BROKEN as error:
                if candidate not in self._named:
                    self._named.add(candidate)
                    log.warning(
                        "%s cannot be decoded (%s); the next image is used instead",
                        self.encoded.describe(candidate),
                        type(error).__name__,
                    )
        raise DdpmError(
            f"{self.encoded.describe(index)} and the {SUBSTITUTES - 1} images after it cannot be "
            "decoded; repair the data and resume"
        )

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return torch.stack([self.read(int(i)) for i in indices])


def fits_in_memory(count: int, image_size: int, channels: int, limit: int) -> bool:
    """Whether the pixels of `count` images take at most `limit` bytes."""
    return count * image_size**2 * channels <= limit


def open_encoded(
    encoded: EncodedImages, image_size: int, channels: int, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """The pixels of `encoded`: in memory, without what is broken, or streamed.

    Raises:
        DdpmError: there are none, or more than 1% are broken; of a streamed set `PROBED` images
            are looked at.
    """
    count = len(encoded)
    check(count > 0, f"{encoded.name} holds no images")
    if fits_in_memory(count, image_size, channels, memory_limit):
        images, broken = decode_many(encoded, range(count), image_size, channels)
        for name in broken:
            log.warning("skipped a broken image: %s", name)
        if broken:
            log.warning("skipped %d of %d images", len(broken), count)
        return MemoryImages(torch.stack(images), name=encoded.name)
    tried = min(count, PROBED)
    decode_many(encoded, [i * count // tried for i in range(tried)], image_size, channels)
    return StreamedImages(encoded, image_size, channels)
