"""Images to one file and back: `compress` and `decompress`."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.codec.header import MAX_THREADS, MAX_VALUES, Header, unpack
from ddpm.codec.tiles import cut, grid, join, masks
from ddpm.codec.transmission import Spent, Walk, receive, send
from ddpm.errors import check
from ddpm.model import Ddpm

Progress = Callable[[int, int], None]
"""Called with how many (tile, step) pairs were just done and how many there are in all."""


@dataclass(frozen=True)
class Decompressed:
    """What a file, or the part of it that is there, decodes to.

    Args:
        images: uint8 grey levels, [c, h, w] each.
        exact: they are what was compressed, to the last bit.
        steps: how many of the K steps the bytes reached.
    """

    images: list[UInt8[Tensor, "c _h _w"]]
    exact: bool
    steps: int


def fingerprint(model: Ddpm) -> int:
    """24 bits that differ for other weights, schedules or error tables."""
    digest = hashlib.blake2b(digest_size=3)
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    digest.update(repr(model.config.diffusion).encode())
    digest.update(np.ascontiguousarray(model.errors().xstart_mse).tobytes())
    return int.from_bytes(digest.digest(), "little")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Arithmetic on that many threads: another number of them rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def checksum(images: Sequence[Tensor]) -> int:
    """CRC-32 of all pixels."""
    value = 0
    for image in images:
        value = zlib.crc32(image.contiguous().numpy().tobytes(), value)
    return value


def make_walk(
    model: Ddpm,
    steps: int,
    sizes: Sequence[tuple[int, int]],
    progress: Callable[[int], None] | None,
) -> Walk:
    """The transmission that both sides set up from the header."""
    chain = model.chain(steps, "optimal", "analytic")
    real = masks(sizes, model.facts.shape)
    channels, levels = model.facts.shape[0], model.facts.grey_levels
    return Walk(chain, model.denoiser, real, channels, levels, model.device, progress)


def check_size(model: Ddpm, sizes: Sequence[tuple[int, int]], what: str) -> None:
    """Refuse more pixels than one file may hold, before anything is allocated for them."""
    channels, height, width = model.facts.shape
    limit = MAX_VALUES // (channels * height * width)
    tiles = 0
    for size in sizes:
        check(min(size) >= 1 and max(size) <= MAX_VALUES, f"{what} has an image without pixels")
        rows, columns = grid(size, model.facts.shape)
        tiles += rows * columns
        check(
            tiles <= limit,
            f"{what} needs more than {limit:,} tiles of {height}x{width} pixels, the most one file "
            "may hold; use several files",
        )


def default_steps(model: Ddpm, values: int) -> int:
    """K: few for a small image, whose every step costs a few bits more than its KL."""
    most = 5 if values < 1000 else 25 if values < 10_000 else 50
    return min(most, model.diffusion.num_timesteps)


def compress(
    model: Ddpm,
    images: Sequence[UInt8[Tensor, "c _h _w"]],
    *,
    steps: int | None = None,
    progress: Progress | None = None,
    spent: Spent | None = None,
) -> bytes:
    """One file for all images; every prefix of it (after the header) decodes.

    Args:
        images: grey levels of the model's channels, of any sizes.
        steps: K, the network calls an image takes; chosen by the amount of data by default.
        progress: see `Progress`.
        spent: filled with where the bits went.

    Raises:
        DdpmError: images that the model cannot take, or a K out of range.
    """
    check(len(images) > 0, "there are no images to compress")
    channels, height, width = model.facts.shape
    for image in images:
        check(
            image.ndim == 3 and image.shape[0] == channels,
            f"this model takes images of {channels} channels, got {tuple(image.shape)}",
        )
        highest = int(image.max()) if image.numel() else 0
        check(
            highest < model.facts.grey_levels,
            f"this model knows grey levels 0..{model.facts.grey_levels - 1}, got {highest}",
        )
    check(
        model.facts.grey_levels >= 2 and not model.diffusion.learns_variance,
        "compression needs a model with a fixed variance; this one learned its own",
    )
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    check_size(model, sizes, "this set")
    tiles, _ = cut(images, model.facts.shape)
    steps = steps or default_steps(model, tiles.numel())
    check(
        1 <= steps <= min(255, model.diffusion.num_timesteps),
        f"steps must lie in 1..{min(255, model.diffusion.num_timesteps)}, got {steps}",
    )
    plain = all(size == (height, width) for size in sizes)
    count = min(torch.get_num_threads(), MAX_THREADS)

    def file(k: int, payload: bytes) -> bytes:
        header = Header(
            fingerprint(model),
            checksum(images),
            k,
            count,
            len(images),
            None if plain else tuple(sizes),
            len(payload),
        )
        return header.pack() + payload

    total = 2 * steps * len(tiles)  # to encode, and to see that it decodes

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, total)

    with threads(count):
        data = file(steps, send(make_walk(model, steps, sizes, advance), tiles, spent))
    if not _read(model, data, advance).exact:  # this machine does not repeat itself
        pixels = b"".join(image.contiguous().numpy().tobytes() for image in images)
        data = file(0, zlib.compress(pixels, 9))
    return data


def decompress(
    model: Ddpm, data: bytes, *, sample: bool = False, progress: Progress | None = None
) -> Decompressed:
    """The images of a file, or the best guess at them from a part of it.

    Args:
        data: a file of `compress`, or its beginning.
        sample: complete a partial file with likely detail instead of the least error.
        progress: as for `compress`.

    Raises:
        DdpmError: no such file, another version or model, or damage.
    """
    header, payload = unpack(data)

    def advance(done: int) -> None:
        if progress is not None:
            progress(done, header.steps * tile_count(model, header))

    result = _read(model, data, advance, sample)
    check(
        result.exact or len(payload) < header.length,
        "the file is whole but does not decode to the pixels it was made from: it is damaged, or "
        "this machine computes otherwise than the one that wrote it",
    )
    return result


def header_sizes(model: Ddpm, header: Header) -> Sequence[tuple[int, int]]:
    """(height, width) of each image of a file."""
    return header.sizes or (model.facts.shape[1:],) * header.count


def tile_count(model: Ddpm, header: Header) -> int:
    """Tiles of all images of a file."""
    grids = (grid(size, model.facts.shape) for size in header_sizes(model, header))
    return sum(rows * columns for rows, columns in grids)


def _read(
    model: Ddpm, data: bytes, advance: Callable[[int], None], sample: bool = False
) -> Decompressed:
    header, payload = unpack(data)
    own = fingerprint(model)
    check(
        header.model == own,
        f"this file needs the model with fingerprint {header.model:06x}, and this one has "
        f"{own:06x}; give the run it was compressed with",
    )
    sizes = header_sizes(model, header)
    check_size(model, sizes, "this file")
    check(header.steps <= model.diffusion.num_timesteps, "the header of the file is damaged")
    whole = len(payload) == header.length
    if header.steps == 0:
        images, steps = _stored(payload, sizes, model.facts.shape[0]), 0
    else:
        with threads(header.threads):
            walk = make_walk(model, header.steps, sizes, advance)
            received = receive(walk, payload, whole, sample)
        images, steps = join(received.tiles, sizes, model.facts.shape), received.steps
    exact = whole and checksum(images) == header.pixels
    return Decompressed(images, exact, steps)


def _stored(payload: bytes, sizes: Sequence[tuple[int, int]], channels: int) -> list[Tensor]:
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
