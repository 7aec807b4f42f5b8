"""The file: a checked header of about 15 bytes, and a payload that may end anywhere.

`docs/file-format.md` gives every byte.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from ddpm.errors import DdpmError, check

MAGIC = b"\xddP"
VERSION = 1
MAX_VALUES = 1 << 22  # pixels times channels in one file, with the padding of its tiles
MAX_THREADS = 64


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first bit.

    Args:
        model: 24-bit fingerprint of what the decoder computes with (`codec.model`).
        pixels: CRC-32 of all the images' bytes.
        steps: K; 0 where the images are stored without the model.
        threads: that the encoder's arithmetic ran on.
        count: images.
        sizes: (height, width) of each where one differs from the model's, else None.
        length: bytes of the whole payload, so that a truncated one is known as such.
    """

    model: int
    pixels: int
    steps: int
    threads: int
    count: int
    sizes: tuple[tuple[int, int], ...] | None
    length: int

    def pack(self) -> bytes:
        """The header's bytes; the last is a check on all before it."""
        body = MAGIC + bytes([VERSION])
        body += self.model.to_bytes(3, "little") + self.pixels.to_bytes(4, "little")
        body += bytes([self.steps, self.threads])
        body += varint(2 * self.count + (self.sizes is not None))
        for height, width in self.sizes or ():
            body += varint(height) + varint(width)
        body += varint(self.length)
        return body + bytes([zlib.crc32(body) & 255])


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class File(NamedTuple):
    """A file that was parsed: what its header says, and as much of the payload as is there."""

    header: Header
    payload: bytes

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the payload is missing."""
        return len(self.payload) == self.header.length


def parse(data: bytes) -> File:
    """Check a file's header and cut it off.

    Raises:
        DdpmError: it is no file of ours, of another version, cut inside the header, or damaged.
    """
    check(data[:2] == MAGIC[: len(data)] and len(data) > 0, "this is not a file of `ddpm compress`")
    check(
        len(data) < 3 or data[2] == VERSION,
        f"this file has format version {data[2] if len(data) > 2 else 0}, and this version of ddpm "
        f"reads version {VERSION}; use the version that wrote it",
    )
    position = 12

    def number() -> int:
        nonlocal position
        value = 0
        for shift in range(0, 35, 7):
            check(position < len(data), "the file is cut off inside its header; fetch it again")
            byte, position = data[position], position + 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise DdpmError("the header of the file is damaged; fetch it again")

    count, sized = divmod(number(), 2)
    check(1 <= count <= MAX_VALUES, "the header of the file is damaged; fetch it again")
    sizes = tuple((number(), number()) for _ in range(count)) if sized else None
    length = number()
    check(position < len(data), "the file is cut off inside its header; fetch it again")
    sound = data[position] == zlib.crc32(data[:position]) & 255
    check(sound, "the header of the file is damaged; fetch it again")
    header = Header(
        int.from_bytes(data[3:6], "little"),
        int.from_bytes(data[6:10], "little"),
        data[10],
        data[11],
        count,
        sizes,
        length,
    )
    check(1 <= header.threads <= MAX_THREADS, "the header of the file is damaged; fetch it again")
    return File(header, data[position + 1 : position + 1 + length])
