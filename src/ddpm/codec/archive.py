"""Images to one file: `compress`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.codec.header import (
    CHECK_BYTES,
    MAX_IMAGES,
    MODEL_BITS,
    Header,
    Part,
)
from ddpm.codec.model import CodecModel
from ddpm.codec.names import check_names
from ddpm.codec.parts import parts, tiles_of_a_part
from ddpm.codec.tiles import grid
from ddpm.codec.transmission import Spent, Walk, receive, send
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.runtime.device import exact_arithmetic
from ddpm.runtime.progress import Counter, Progress

Image = UInt8[Tensor, "c _h _w"]
LARGEST = 1 << 28  # pixels times channels of one image: 89 megapixels in colour


@exact_arithmetic()
def compress(
    model: CodecModel,
    images: Sequence[Image],
    *,
    names: Sequence[str] | None = None,
    steps: int | None = None,
    last_timestep: int | None = None,
    progress: Progress | None = None,
    spent: Spent | None = None,
) -> bytes:
    """One file for all images; every prefix of it (after the header) decodes.

    Args:
        model: what both sides have.
        images: grey levels of the model's channels, of any sizes.
        names: of the images, relative paths; left out by default.
        steps: K, the network calls an image takes; those that cost least by default.
        last_timestep: where the last stage takes over; see `ddpm.codec.planning` for the default.
        progress: counts (tile, step) pairs, to encode and to see that the file decodes.
        spent: filled in with where the bits went.

    Raises:
        DdpmError: images that the model cannot take, names that not every system can write, or a
            number out of range.
    """
    check_images(model.format, images)
    if names is not None:
        check(len(names) == len(images), f"there are {len(images)} images and {len(names)} names")
        check_names(names)
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    shape = model.format.shape
    tiles = sum(math.prod(grid(size, shape)) for size in sizes)
    route = model.route(min(tiles, tiles_of_a_part(shape)), steps, last_timestep)
    counter = Counter(progress, 2 * route.steps * tiles, "compressing")
    payloads, found, proved = [], [], True
    for part in parts(sizes, shape):
        pieces = [images[block.image][(slice(None), *block.place)] for block in part]
        walk = Walk(model, route, [block.size for block in part], counter)
        payload = send(walk, pieces, spent or Spent())
        received = receive(walk, payload, [len(payload)], len(payload))[0]
        proved &= all(map(torch.equal, received.blocks, pieces))
        payloads.append(payload)
        found.append(Part(len(payload), sealed(pieces)))
    default = route == model.coding.route
    plain = {size: None for size in sizes}
    header = Header(
        model.fingerprint % (1 << MODEL_BITS),
        len(images),
        None if list(plain) == [shape[1:]] else tuple(plain if len(plain) == 1 else sizes),
        None if names is None else tuple(names),
        None if default else route,
        False,
        tuple(found),
    )
    if proved:
        return b"".join([header.pack(), *payloads])
    return _stored(replace(header, route=None), images)


def sealed(pieces: Sequence[Tensor]) -> int:
    """The check of some pixels."""
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece.contiguous().numpy().tobytes(), crc)
    return crc % (1 << 8 * CHECK_BYTES)


def _stored(header: Header, images: Sequence[Tensor]) -> bytes:
    """A file without the model, for a machine that does not repeat its own arithmetic."""
    payload = zlib.compress(b"".join(image.contiguous().numpy().tobytes() for image in images), 9)
    part = Part(len(payload), sealed(images))
    return replace(header, stored=True, parts=(part,)).pack() + payload


def check_images(image_format: ImageFormat, images: Sequence[Image]) -> None:
    """Refuse images that the model cannot take; they may have any size."""
    check(len(images) > 0, "there are no images to compress")
    check(len(images) <= MAX_IMAGES, f"a file holds at most {MAX_IMAGES:,} images")
    for image in images:
        check(
            image.ndim == 3 and image.shape[0] == image_format.channels,
            f"this model expects images of {image_format.channels} channels, got shape "
            f"{tuple(image.shape)}",
        )
        check(image.numel() > 0, "this set has an image without pixels")
        check(
            image.numel() <= LARGEST,
            f"an image may have {LARGEST:,} numbers at most, got {image.numel():,}; cut it",
        )
        image_format.check_levels(int(image.max()))
