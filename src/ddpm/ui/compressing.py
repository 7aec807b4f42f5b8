"""What the tab Compress does: a file, what its first bytes show, and other formats beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.codec import Decompressed, decompress_beginnings, parse
from ddpm.data.images import ImageFormat, byte_mse, psnr
from ddpm.errors import check
from ddpm.evaluation.image_formats import available_formats, lossy_files, write
from ddpm.model import Ddpm
from ddpm.ui.uploads import LARGEST
from ddpm.ui.work import Work

COMPARED = ("JPEG", "WebP", "JPEG XL", "AVIF")
PLACES = 33  # beginnings of a file that are decoded at once, for the curve
IMAGES = 16  # of one archive that the page shows


@dataclass(frozen=True)
class Rival:
    """An image in another format.

    Args:
        bytes: of the file.
        psnr: dB; infinite where nothing is lost.
        picture: what it decodes to.
    """

    bytes: int
    psnr: float
    picture: Image.Image


@dataclass(frozen=True)
class Beginning:
    """What the first bytes of a file decode to.

    Args:
        bytes: how many.
        psnr: dB; infinite where nothing is lost, not a number where the original is not known.
        images: what they decode to.
    """

    bytes: int
    psnr: float
    images: list[UInt8[Tensor, "c _h _w"]]


@dataclass(frozen=True)
class Packed:
    """A file of the codec and what is known of it.

    Args:
        name: of it.
        data: all its bytes.
        head: bytes of its header, below which nothing decodes.
        originals: the images that it holds; None if the file is only a beginning.
        beginnings: at some places, bytes rising.
        rivals: other formats' files of the same image by format, bytes rising.
        missing: formats that this installation cannot write.
        needs: words about the model that decoding takes, where it might be removed.
    """

    name: str
    data: bytes
    head: int
    originals: list[Tensor] | None
    beginnings: list[Beginning]
    rivals: dict[str, list[Rival]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    needs: str = ""

    @property
    def values(self) -> int:
        """Pixels times channels."""
        return sum(image.numel() for image in self.beginnings[-1].images)

    def bits_per_dim(self, size: int) -> float:
        """Of so many bytes."""
        return 8 * size / self.values


def pack(
    model: Ddpm, image: UInt8[Tensor, "c _h _w"], name: str, work: Work, needs: str = ""
) -> Packed:
    """Compress an image, decode beginnings of the file, and write it in other formats.

    Args:
        model, image, work: as they are.
        name: of the image.
        needs: see `Packed`.

    Raises:
        DdpmError: the model cannot compress.
    """
    data = model.compress([image], progress=work)
    packed = examine(model, data, f"{name.rsplit('.', 1)[0]}.ddpm", work)
    rivals = {}
    formats = {name: kind for name, kind in available_formats().items() if name in COMPARED}
    for done, (other, _) in enumerate(formats.items()):
        work(done, len(formats), "other formats")
        rivals[other] = rivals_of(image, model.format, other)
    missing = tuple(name for name in COMPARED if name not in formats)
    return replace(packed, originals=[image], rivals=rivals, missing=missing, needs=needs)


def examine(model: Ddpm, data: bytes, name: str, work: Work) -> Packed:
    """Decode a file, or the beginning of one, at some places.

    Raises:
        DdpmError: it is no file of this codec, or of another model, or too large for the page.
    """
    file = parse(data)
    header, shape = file.header, model.format.shape
    sizes = header.sizes or (shape[1:],)
    repeat = header.count if len(sizes) == 1 else 1
    pixels = repeat * sum(math.prod(size) for size in sizes)
    check(
        header.count <= IMAGES and pixels <= LARGEST,
        f"the file holds {header.count:,} images of {pixels:,} pixels, and this page takes "
        f"{IMAGES} of {LARGEST:,} at most; use `ddpm decompress`",
    )
    head = len(data) - len(file.payload)
    lengths = np.linspace(0, len(file.payload), PLACES).round().astype(int).tolist()
    found = decompress_beginnings(model.for_codec(), file, lengths, progress=work)
    whole = found[-1]
    originals = whole.images if whole.exact else None
    beginnings = [
        _beginning(head + length, part, originals, model.format)
        for length, part in zip(lengths, found, strict=True)
    ]
    return Packed(name, data, head, originals, beginnings)


def _beginning(
    size: int, part: Decompressed, originals: list[Tensor] | None, image_format: ImageFormat
) -> Beginning:
    """What was decoded, compared with what was sent."""
    if originals is None:
        return Beginning(size, math.nan, part.images)
    seen = part.like(originals, image_format)
    ours = torch.cat([image.flatten() for image in seen])
    sent = torch.cat([image.flatten() for image in originals])
    return Beginning(size, psnr(byte_mse(ours, sent, image_format)), seen)


def beginning(model: Ddpm, packed: Packed, size: int, work: Work) -> Beginning:
    """What exactly so many bytes decode to.

    Raises:
        DdpmError: the file is damaged.
    """
    size = max(packed.head, min(size, len(packed.data)))
    part = model.decompress(packed.data[:size], progress=work)
    return _beginning(size, part, packed.originals, model.format)


def nearest(packed: Packed, size: int) -> Beginning:
    """The longest beginning of at most so many bytes among those decoded already."""
    fitting = [one for one in packed.beginnings if one.bytes <= size]
    return fitting[-1] if fitting else packed.beginnings[0]


def rivals_of(image: Tensor, image_format: ImageFormat, name: str) -> list[Rival]:
    """The files of an image in another format, by falling loss."""
    kind = available_formats()[name]
    pixels = image_format.to_bytes(image.permute(1, 2, 0).numpy())
    pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    files = lossy_files(pixels, name)
    files += [write(pixels, kind, kind.lossless)] if kind.lossless else []
    found = []
    for size, back in files:
        mse = float(np.square(back.astype(float) - pixels).mean())
        found.append(Rival(size, psnr(mse), Image.fromarray(back)))
    return sorted(found, key=lambda rival: rival.bytes)


def best_rival(rivals: list[Rival], size: int) -> Rival | None:
    """The closest one of at most so many bytes."""
    return max(
        (rival for rival in rivals if rival.bytes <= size), key=lambda r: r.psnr, default=None
    )
