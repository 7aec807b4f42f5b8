"""A file back to its images, or a beginning of one: `decompress`."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ddpm.codec.archive import LARGEST, Image, sealed
from ddpm.codec.header import (
    CHECK_BYTES,
    DAMAGED,
    File,
    Header,
    parse,
)
from ddpm.codec.model import CodecModel
from ddpm.codec.parts import Block, parts, tiles_of_a_block, tiles_of_a_part
from ddpm.codec.tiles import Size, grid
from ddpm.codec.transmission import Reconstruct, Walk, receive
from ddpm.data.images import ImageFormat
from ddpm.errors import check, one_of, whole_number
from ddpm.runtime.device import exact_arithmetic
from ddpm.runtime.progress import Counter, Progress

EXPANSION = 1032  # times as many bytes at the most does zlib unpack


@dataclass(frozen=True)
class Decompressed:
    """What a file, or the part of it that is there, decodes to.

    Args:
        images: uint8 grey levels, [c, h, w] each: those that were asked for and that the bytes
            reach, in order.
        numbers: which images of the file they are.
        exact: they are what was compressed, to the last bit, and none is missing.
        guessed: the numbers of those that are not, for not all of their bytes are there.
        steps: how many of the K steps the bytes reached, of the last part that they reach; K for
            complete ones.
    """

    images: list[Image]
    numbers: list[int]
    exact: bool
    steps: int
    guessed: frozenset[int] = frozenset()

    def like(self, originals: Sequence[Image], image_format: ImageFormat) -> list[Image]:
        """All images of a file of `originals`: grey ones for those that no byte has reached."""
        found = dict(zip(self.numbers, self.images, strict=True))
        grey = image_format.levels // 2
        return [found.get(i, torch.full_like(one, grey)) for i, one in enumerate(originals)]


def decompress(
    model: CodecModel,
    data: bytes | File,
    *,
    only: Sequence[int] | None = None,
    reconstruct: Reconstruct = "mean",
    progress: Progress | None = None,
) -> Decompressed:
    """The images of a file, or the best guess at them from a part of it.

    Args:
        model: the one that the file was made with.
        data: a file of `compress` or its beginning, as bytes or parsed.
        only: numbers of the images that are wanted, rising; all by default.
        reconstruct: what a part that is not all there is completed to: mean, the predicted x_0;
            sample, likely detail; average, the mean of several completions.
        progress: counts (tile, step) pairs.

    Raises:
        DdpmError: no such file, another version or model, or damage.
    """
    file = as_file(data)
    length = len(file.payload)
    return _decode(model, file, [length], only, reconstruct, progress)[0]


def decompress_beginnings(
    model: CodecModel,
    data: bytes | File,
    lengths: Sequence[int],
    *,
    reconstruct: Reconstruct = "mean",
    progress: Progress | None = None,
) -> list[Decompressed]:
    """What each beginning of a file decodes to, for the time that the longest of them takes.

    Args:
        model, data, reconstruct, progress: see `decompress`.
        lengths: bytes of the payload (`File.payload`) in each beginning, rising.

    Raises:
        DdpmError: as `decompress`, or the lengths fall or are longer than what is there.
    """
    file = as_file(data)
    check(
        list(lengths) == sorted(lengths)
        and all(0 <= length <= len(file.payload) for length in lengths),
        f"the lengths must rise from 0 to {len(file.payload):,} bytes at most, got {lengths}",
    )
    return _decode(model, file, lengths, None, reconstruct, progress)


def as_file(data: bytes | File) -> File:
    """A file, of which the bytes may be given."""
    check(
        isinstance(data, File | bytes),
        f"a {type(data).__name__} is no file of `compress`; give its bytes",
    )
    return data if isinstance(data, File) else parse(data)


class _Arrived:
    """The images of one beginning of a file, as their blocks arrive.

    Args:
        header: of the file.
        image_format: of the model.
        wanted: numbers of the images that are; None for all.
    """

    def __init__(self, header: Header, image_format: ImageFormat, wanted: set[int] | None) -> None:
        self.header, self.format, self.wanted = header, image_format, wanted
        self.found: dict[int, Tensor] = {}
        self.steps, self.complete, self.guessed = 0, True, set[int]()

    def lacks(self, blocks: Sequence[Block]) -> None:
        """Not all bytes of some blocks are there."""
        self.complete = False
        self.guessed |= {block.image for block in blocks}

    def put(self, blocks: Sequence[Block], pixels: Sequence[Tensor], steps: int) -> None:
        """Blocks that have arrived; what is missing of their images is grey."""
        self.steps = steps
        for block, piece in zip(blocks, pixels, strict=True):
            if self.wanted is not None and block.image not in self.wanted:
                continue
            if block.image not in self.found:
                size = (self.format.channels, *size_of(self.header, self.format, block.image))
                self.found[block.image] = torch.full(size, self.format.levels // 2).to(torch.uint8)
            self.found[block.image][(slice(None), *block.place)] = piece

    def result(self) -> Decompressed:
        """What there is."""
        numbers = sorted(self.found)
        images = [self.found[number] for number in numbers]
        guessed = frozenset(self.guessed & self.found.keys())
        return Decompressed(images, numbers, self.complete, self.steps, guessed)


def chosen(header: Header, only: Sequence[int]) -> set[int]:
    """The numbers of the images that are wanted.

    Raises:
        DdpmError: they are no numbers, or there are no such images.
    """
    numbers = only.tolist() if isinstance(only, np.ndarray | Tensor) else only
    check(isinstance(numbers, Iterable), f"only takes a list of numbers, got {only!r}")
    found = {whole_number("the number of an image", number, 0) for number in numbers}
    check(
        max(found, default=0) < header.count,
        f"the file holds the images 0..{header.count - 1}, got {sorted(found)}",
    )
    return found


def size_of(header: Header, image_format: ImageFormat, number: int) -> Size:
    """(height, width) of an image of a file."""
    if header.sizes is None:
        return image_format.height, image_format.width
    return header.sizes[number if len(header.sizes) > 1 else 0]


def check_file(model: CodecModel, file: File) -> None:
    """Refuse a file of another model, and one that asks for more than its parts can hold.

    Raises:
        DdpmError: it is one.
    """
    header, shape = file.header, model.format.shape
    with_class = ", with the class and the guidance it was given" if model.classes else ""
    needed, bits = header.model, header.model_bits
    check(
        header.fits(model.fingerprint),
        f"this file needs the model with fingerprint {needed:0{bits // 4}x}, and this one has "
        f"{model.fingerprint % (1 << bits):0{bits // 4}x}; load the model it was compressed "
        f"with{with_class}",
    )
    sizes = header.sizes or (shape[1:],)
    repeat = header.count if len(sizes) == 1 else 1
    check(all(min(size) > 0 for size in sizes), DAMAGED)
    check(max(map(math.prod, sizes)) * shape[0] <= LARGEST, DAMAGED)
    if header.stored:
        values = repeat * shape[0] * sum(map(math.prod, sizes))
        check(len(header.parts) == 1 and values <= EXPANSION * header.length, DAMAGED)
        return
    tiles = repeat * sum(math.prod(grid(size, shape)) for size in sizes)
    small = max(math.prod(grid(size, shape)) for size in sizes) <= tiles_of_a_part(shape)
    most = tiles_of_a_part(shape) if small else tiles_of_a_block(shape)
    check(
        tiles <= most * len(header.parts)
        and (header.route is None or model.can_walk(header.route)),
        DAMAGED,
    )


@exact_arithmetic()
def _decode(
    model: CodecModel,
    file: File,
    lengths: Sequence[int],
    only: Sequence[int] | None,
    reconstruct: Reconstruct,
    progress: Progress | None,
) -> list[Decompressed]:
    """Every beginning of a file, part by part."""
    one_of("reconstruct", reconstruct, get_args(Reconstruct))
    check_file(model, file)
    header = file.header
    wanted = None if only is None else chosen(header, only)
    arrived = [_Arrived(header, model.format, wanted) for _ in lengths]
    if header.stored:
        return [_unpack(file, one, n) for one, n in zip(arrived, lengths, strict=True)]
    route = header.route or model.coding.route
    shape, tiles = model.format.shape, 0
    for piece in _pieces(header, model.format, wanted):
        if not piece.is_reached(lengths[-1]):
            break
        tiles += sum(math.prod(grid(block.size, shape)) for block in piece.blocks)
    counter = Counter(progress, route.steps * tiles, "decompressing")
    for piece in _pieces(header, model.format, wanted):
        reached = [n for n in lengths if piece.is_reached(n)]
        for one in arrived[: len(lengths) - len(reached)]:
            one.lacks(piece.blocks)
        if not reached:
            break
        walk = Walk(model, route, [block.size for block in piece.blocks], counter)
        cuts = [min(n, piece.end) - piece.start for n in reached]
        code = file.payload[piece.start : piece.start + cuts[-1]]
        whole = piece.end - piece.start
        received = receive(walk, code, cuts, whole, reconstruct)
        check(
            cuts[-1] < whole or sealed(received[-1].blocks) == piece.check,
            f"the images {piece.blocks[0].image} to {piece.blocks[-1].image} of the file (from 0) "
            "do not decode to the original pixels: it is damaged; fetch it again",
        )
        for one, n, part in zip(arrived[-len(reached) :], cuts, received, strict=True):
            one.put(piece.blocks, part.blocks, part.steps)
            if n < whole:
                one.lacks(piece.blocks)
    return [one.result() for one in arrived]


@dataclass(frozen=True)
class _Piece:
    """A part of a file: where it lies in the payload, its blocks, and the check of its pixels."""

    start: int
    end: int
    blocks: list[Block]
    check: int

    def is_reached(self, length: int) -> bool:
        """Whether a beginning of the payload says anything of it; the first part is guessed."""
        return length > self.start or self.start == 0


def _pieces(header: Header, image_format: ImageFormat, wanted: set[int] | None) -> Iterator[_Piece]:
    """The parts of a file in which there are wanted images, one after another.

    Raises:
        DdpmError: there are more or fewer of them than the header says.
    """
    start, last = 0, header.count - 1 if wanted is None else max(wanted, default=-1)
    sizes = (size_of(header, image_format, number) for number in range(header.count))
    found = parts(sizes, image_format.shape)
    for said, blocks in itertools.zip_longest(header.parts, found):
        check(said is not None and blocks is not None, DAMAGED)
        if wanted is None or any(block.image in wanted for block in blocks):
            yield _Piece(start, start + said.length, blocks, said.check)
        start += said.length
        if wanted is not None and blocks[-1].image > last:
            return


def _unpack(file: File, arrived: _Arrived, length: int) -> Decompressed:
    """Images stored without the model; those that are missing come out grey."""
    header, channels = file.header, arrived.format.channels
    stream, rest, steps = zlib.decompressobj(), file.payload[:length], 0
    crc = 0
    for number in range(header.count):
        size = size_of(header, arrived.format, number)
        count = channels * math.prod(size)
        try:
            pixels = stream.decompress(rest, count)
            rest = stream.unconsumed_tail
        except zlib.error:
            pixels, rest = b"", b""
        block = Block(number, 0, 0, size)
        if len(pixels) < count:
            arrived.lacks([block])
        if not pixels and number:
            break
        crc = zlib.crc32(pixels, crc)
        flat = np.frombuffer(pixels.ljust(count, bytes([arrived.format.levels // 2])), np.uint8)
        image = torch.from_numpy(flat.copy()).reshape(channels, *size)
        arrived.put([block], [image], steps)
    arrived.complete &= crc % (1 << 8 * CHECK_BYTES) == header.parts[0].check
    check(
        arrived.complete or length < header.length,
        "the file does not hold the original pixels: it is damaged; fetch it again",
    )
    return arrived.result()
