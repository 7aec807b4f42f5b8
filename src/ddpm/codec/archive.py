"""Images to one file and back: `compress` and `decompress`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.codec.header import MAX_THREADS, MAX_VALUES, File, Header, parse
from ddpm.codec.model import CodecModel
from ddpm.codec.tiles import cut, grid, join, masks
from ddpm.codec.transmission import BATCH, Spent, Walk, receive, send
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.runtime.progress import Counter, Progress

Image = UInt8[Tensor, "c _h _w"]
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Decompressed:
    """What a file, or the part of it that is there, decodes to.

    Args:
        images: uint8 grey levels, [c, h, w] each.
        exact: they are what was compressed, to the last bit.
        steps: how many of the K steps the bytes reached; K for a complete one.
    """

    images: list[Image]
    exact: bool
    steps: int


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Arithmetic on that many threads: another number of them rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pixel_bytes(images: Sequence[Tensor]) -> bytes:
    """All pixels, one image after another."""
    return b"".join(image.contiguous().numpy().tobytes() for image in images)


def check_size(image_format: ImageFormat, sizes: Sizes, what: str) -> None:
    """Refuse more pixels than one file may hold, before anything is allocated for them."""
    channels, height, width = image_format.shape
    limit = MAX_VALUES // (channels * height * width)
    tiles = 0
    for size in sizes:
        check(min(size) >= 1 and max(size) <= MAX_VALUES, f"{what} has an image without pixels")
        rows, columns = grid(size, image_format.shape)
        tiles += rows * columns
        check(
            tiles <= limit,
            f"{what} needs more than {limit:,} tiles of {height}x{width} pixels, the most one file "
            "may hold; use several files",
        )


def check_images(image_format: ImageFormat, images: Sequence[Image]) -> None:
    """Refuse images that the model cannot take; they may have any size."""
    check(len(images) > 0, "there are no images to compress")
    for image in images:
        check(
            image.ndim == 3 and image.shape[0] == image_format.channels,
            f"this model expects images of {image_format.channels} channels, got shape "
            f"{tuple(image.shape)}",
        )
        if image.numel():
            image_format.check_levels(int(image.max()))


def default_steps(model: CodecModel, values: int) -> int:
    """K: few for a small image, whose every step costs a few bits more than its KL."""
    most = 5 if values < 1000 else 25 if values < 10_000 else 50
    return min(most, model.max_steps)


def compress(
    model: CodecModel,
    images: Sequence[Image],
    *,
    steps: int | None = None,
    progress: Progress | None = None,
    spent: Spent | None = None,
) -> bytes:
    """One file for all images; every prefix of it (after the header) decodes.

    Args:
        model: what both sides have.
        images: grey levels of the model's channels, of any sizes.
        steps: K, the network calls an image takes; chosen by the amount of data by default.
        progress: counts (tile, step) pairs, to encode and to see that the file decodes.
        spent: filled in with where the bits went.

    Raises:
        DdpmError: images that the model cannot take, or a K out of range.
    """
    image_format = model.format
    check_images(image_format, images)
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    check_size(image_format, sizes, "this set")
    tiles, real = cut(images, image_format.shape)
    steps = default_steps(model, tiles.numel()) if steps is None else steps
    check(1 <= steps <= model.max_steps, f"steps must lie in 1..{model.max_steps}, got {steps}")
    count = min(torch.get_num_threads(), MAX_THREADS)
    pixels = pixel_bytes(images)
    plain = all(size == image_format.shape[1:] for size in sizes)

    def file(k: int, payload: bytes) -> bytes:
        header = Header(
            model.fingerprint,
            zlib.crc32(pixels),
            k,
            count,
            len(images),
            None if plain else tuple(sizes),
            len(payload),
        )
        return header.pack() + payload

    walk = Walk(model, steps, real, Counter(progress, 2 * steps * len(tiles), "compressing"))
    with threads(count):
        data = file(steps, send(walk, tiles, spent or Spent()))
    parsed = parse(data)
    if not _read(walk, parsed, sizes, [len(parsed.payload)])[0].exact:  # it does not repeat itself
        data = file(0, zlib.compress(pixels, 9))
    return data


def decompress(
    model: CodecModel,
    data: bytes | File,
    *,
    sample: bool = False,
    progress: Progress | None = None,
) -> Decompressed:
    """The images of a file, or the best guess at them from a part of it.

    Args:
        model: the one that the file was made with.
        data: a file of `compress` or its beginning, as bytes or parsed.
        sample: complete a partial file with likely detail instead of the least error.
        progress: counts (tile, step) pairs.

    Raises:
        DdpmError: no such file, another version or model, or damage.
    """
    file = _parsed(data)
    return decompress_beginnings(
        model, file, [len(file.payload)], sample=sample, progress=progress
    )[0]


def decompress_beginnings(
    model: CodecModel,
    data: bytes | File,
    lengths: Sequence[int],
    *,
    sample: bool = False,
    progress: Progress | None = None,
) -> list[Decompressed]:
    """What each beginning of a file decodes to, for the time that the longest of them takes.

    Args:
        model, data, sample, progress: see `decompress`.
        lengths: bytes of the payload (`File.payload`) in each beginning, rising.

    Raises:
        DdpmError: as `decompress`, or the lengths fall or are longer than what is there.
    """
    file = _parsed(data)
    header, image_format = file.header, model.format
    check(
        list(lengths) == sorted(lengths)
        and all(0 <= length <= len(file.payload) for length in lengths),
        f"the lengths must rise from 0 to {len(file.payload):,} bytes at most, got {lengths}",
    )
    with_class = " and with the class and the guidance it was given" if model.classes else ""
    check(
        header.model == model.fingerprint,
        f"this file needs the model with fingerprint {header.model:06x}, and this one has "
        f"{model.fingerprint:06x}; load the model it was compressed with, in the version of ddpm "
        f"that wrote it{with_class}",
    )
    sizes: Sizes = header.sizes or (image_format.shape[1:],) * header.count
    check_size(image_format, sizes, "this file")
    check(header.steps <= model.max_steps, "the header of the file is damaged")
    if header.steps == 0:
        parts = [_stored(file.payload[:n], sizes, image_format.channels) for n in lengths]
        results = [_judged(file, n, images, 0) for n, images in zip(lengths, parts, strict=True)]
    else:
        real = masks(sizes, image_format.shape)
        counter = Counter(progress, header.steps * len(real), "decompressing")
        results = _read(Walk(model, header.steps, real, counter), file, sizes, lengths, sample)
    for length, result in zip(lengths, results, strict=True):
        check(
            result.exact or not _is_whole(file, length),
            "the file is complete but does not decode to the original pixels: it is damaged, or "
            "this machine's arithmetic differs from that of the machine that wrote it"
            + ", or an earlier version wrote it"
            * (model.format.batch(BATCH) != BATCH),
        )
    return results


def _parsed(data: bytes | File) -> File:
    """A file, of which the bytes may be given."""
    check(
        isinstance(data, File | bytes),
        f"a {type(data).__name__} is no file of `compress`; give its bytes",
    )
    return data if isinstance(data, File) else parse(data)


def _is_whole(file: File, length: int) -> bool:
    """Whether a beginning of so many bytes lacks nothing."""
    return file.is_complete and length == len(file.payload)


def _judged(file: File, length: int, images: list[Tensor], steps: int) -> Decompressed:
    """Images of a beginning, and whether they are the original ones."""
    exact = _is_whole(file, length) and zlib.crc32(pixel_bytes(images)) == file.header.pixels
    return Decompressed(images, exact, steps)


def _read(
    walk: Walk, file: File, sizes: Sizes, lengths: Sequence[int], sample: bool = False
) -> list[Decompressed]:
    """What a receiver makes of beginnings of a file that is coded by the model."""
    with threads(file.header.threads):
        received = receive(walk, file.payload, file.is_complete, lengths, sample)
    return [
        _judged(file, length, join(part.tiles, sizes, walk.model.format.shape), part.steps)
        for length, part in zip(lengths, received, strict=True)
    ]


def _stored(payload: bytes, sizes: Sizes, channels: int) -> list[Tensor]:
    """Images stored without the model; those that are missing come out grey."""
    counts = [channels * height * width for height, width in sizes]
    pixels = np.zeros(sum(counts), dtype=np.uint8)
    try:
        found = zlib.decompressobj().decompress(payload, sum(counts))
    except zlib.error:
        found = b""
    pixels[: len(found)] = np.frombuffer(found, dtype=np.uint8)
    parts = torch.from_numpy(pixels).split(counts)
    return [part.reshape(channels, *size) for part, size in zip(parts, sizes, strict=True)]
