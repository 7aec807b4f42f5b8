"""The file: a header of 8 bytes for a single image of the model's size, a longer one for all else,
and a payload that may end anywhere.

`docs/file-format.md` gives every byte.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from ddpm.codec.names import pack_names, unpack_names
from ddpm.codec.route import MAX_STEPS, Route
from ddpm.errors import DdpmError, check

MAGIC = 0xDD
SINGLE, GENERAL = 2, 3  # the lower half of the second byte: version 2, in its two forms
FIRST = 0x50  # the second byte of version 1
MODEL_BITS, SINGLE_MODEL_BITS, CHECK_BYTES = 28, 12, 3
NAMES, SIZES, ONE_SIZE, ROUTE, STORED = 1, 2, 4, 8, 16  # what a general header holds besides
MAX_IMAGES = 1 << 22  # in one file
DAMAGED = "the header of the file is damaged; fetch it again"
CUT = "the file is cut off inside its header; fetch it again"

Size = tuple[int, int]


class Part(NamedTuple):
    """A stretch of the payload that is decoded by itself (`codec.parts`).

    Args:
        length: in bytes.
        check: of its pixels, 24 bits of their CRC-32.
    """

    length: int
    check: int


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first bit.

    Args:
        model: the lowest 28 bits of the fingerprint of what the decoder computes with
            (`codec.model`), of which the header of a single image holds 12.
        count: images.
        sizes: (height, width) of each, or one for all; None if all have the model's.
        names: of each, or None.
        route: the steps of the path, where it is none of the model's own; None for its own.
        stored: the images are stored without the model.
        parts: of the payload, in order.
    """

    model: int
    count: int
    sizes: tuple[Size, ...] | None
    names: tuple[str, ...] | None
    route: Route | None
    stored: bool
    parts: tuple[Part, ...]

    @property
    def is_single(self) -> bool:
        """Whether the short header says all there is to say."""
        plain = self.sizes is None and self.names is None and self.route is None
        return self.count == len(self.parts) == 1 and plain and not self.stored

    @property
    def model_bits(self) -> int:
        """How many bits of the fingerprint the file holds."""
        return SINGLE_MODEL_BITS if self.is_single else MODEL_BITS

    @property
    def length(self) -> int:
        """Bytes of the whole payload, so that a truncated one is known as such."""
        return sum(part.length for part in self.parts)

    def fits(self, fingerprint: int) -> bool:
        """Whether the file was made with the model of a fingerprint, as far as it says."""
        return (fingerprint ^ self.model) % (1 << self.model_bits) == 0

    def pack(self) -> bytes:
        """The header's bytes."""
        form = SINGLE if self.is_single else GENERAL
        low = self.model % (1 << SINGLE_MODEL_BITS)
        start = bytes([MAGIC, form | low % 16 << 4, low >> 4])
        if self.is_single:
            return start + self.parts[0].check.to_bytes(CHECK_BYTES, "little") + varint(self.length)
        body = start + (self.model >> SINGLE_MODEL_BITS).to_bytes(2, "little") + self._rest()
        return body + (zlib.crc32(body) & 0xFFFF).to_bytes(2, "little")

    def _rest(self) -> bytes:
        """What only a general header holds, without its check."""
        sizes = self.sizes or ()
        flags = NAMES * (self.names is not None) + ROUTE * (self.route is not None)
        flags += STORED * self.stored
        flags += ONE_SIZE if len(sizes) == 1 else SIZES * bool(sizes)
        body = varint(flags) + varint(self.count)
        for height, width in sizes:
            body += varint(height) + varint(width)
        if self.route is not None:
            body += varint(self.route.steps) + b"".join(map(varint, self.route.numbers()))
        if self.names is not None:
            packed = pack_names(self.names)
            body += varint(len(packed)) + packed
        body += varint(len(self.parts))
        for part in self.parts:
            body += part.check.to_bytes(CHECK_BYTES, "little") + varint(part.length)
        return body


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class File(NamedTuple):
    """A file that was parsed: what its header says, as much of the payload as is there, and how
    many bytes come after its end."""

    header: Header
    payload: bytes
    surplus: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the payload is missing."""
        return len(self.payload) == self.header.length


class _Reader:
    """Numbers and bytes of a header, one after another."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def room(self, count: int) -> None:
        """Refuse to read so many bytes where there are fewer."""
        check(count <= len(self.data) - self.position, CUT)

    def bytes(self, count: int) -> bytes:
        """The next ones."""
        self.room(count)
        self.position += count
        return self.data[self.position - count : self.position]

    def part(self) -> Part:
        """The next part."""
        sealed = int.from_bytes(self.bytes(CHECK_BYTES), "little")
        return Part(self.number(), sealed)

    def number(self) -> int:
        """The next varint."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise DdpmError(DAMAGED)

    def numbers(self, count: int) -> list[int]:
        """The next varints; each takes a byte at least, so that a forged count finds no room."""
        self.room(count)
        return [self.number() for _ in range(count)]


def parse(data: bytes) -> File:
    """Check a file's header and cut it off.

    Raises:
        DdpmError: it is no file of ours, of another version, cut inside the header, or damaged.
    """
    check(data[:1] == bytes([MAGIC]), "this is not a file of `ddpm compress`")
    check(len(data) > 1, CUT)
    check(
        data[1] != FIRST,
        "this file is of the first format, which ddpm 0.1.0 reads (pip install ddpm-exact==0.1.0); "
        "decompress it there, and compress its images anew",
    )
    form = data[1] & 15
    check(
        form in (SINGLE, GENERAL),
        "this is not a file of `ddpm compress`, or of a later version than this one, which reads "
        "version 2",
    )
    reader = _Reader(data, 2)
    model = data[1] >> 4 | reader.bytes(1)[0] << 4
    if form == SINGLE:
        header = Header(model, 1, None, None, None, False, (reader.part(),))
    else:
        model |= int.from_bytes(reader.bytes(2), "little") << SINGLE_MODEL_BITS
        header = _general(reader, model)
    end = reader.position + header.length
    return File(header, data[reader.position : end], max(len(data) - end, 0))


def _general(reader: _Reader, model: int) -> Header:
    """The rest of a long header, which is checked before anything is believed of it.

    Raises:
        DdpmError: it is cut or damaged.
    """
    flags, count = reader.number(), reader.number()
    check(flags < 2 * STORED and 1 <= count <= MAX_IMAGES, DAMAGED)
    listed = 1 if flags & ONE_SIZE else count if flags & SIZES else 0
    flat = reader.numbers(2 * listed)
    route = None
    if flags & ROUTE:
        steps = reader.number()
        check(1 <= steps <= MAX_STEPS, DAMAGED)
        route = reader.numbers(2 * steps - 1)
    packed = reader.bytes(reader.number()) if flags & NAMES else None
    many = reader.number()
    reader.room(many)
    parts = tuple(reader.part() for _ in range(many))
    sound = zlib.crc32(reader.data[: reader.position]) & 0xFFFF
    check(reader.bytes(2) == sound.to_bytes(2, "little"), DAMAGED)
    return Header(
        model,
        count,
        tuple(zip(flat[::2], flat[1::2], strict=True)) or None,
        None if packed is None else unpack_names(packed, count),
        None if route is None else Route.of_numbers(route),
        bool(flags & STORED),
        parts,
    )
