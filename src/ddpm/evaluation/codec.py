"""How good the codec is: sizes, where the bits go, prefixes, speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.codec import Decompressed, Spent, decompress_beginnings, parse
from ddpm.data.images import ImageFormat, byte_mse
from ddpm.errors import check
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter, Progress

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SINGLE = 32  # images that are also compressed one by one


@dataclass(frozen=True)
class Prefix:
    """What the first bytes of a file decode to.

    Args:
        bytes: how many.
        steps: that they reached.
        mse: mean squared error on 0..255.
        images: what was decoded; grey where no byte has reached.
    """

    bytes: int
    steps: int
    mse: float
    images: list[UInt8[Tensor, "c _h _w"]]


@dataclass(frozen=True)
class CodecFigures:
    """Of one archive of images, and of some of them one by one.

    Args:
        values: pixels times channels in all.
        steps: K.
        archive, header: bytes.
        spent: where the bits of the archive went.
        single: bytes of each of the first images as a file of its own.
        encode, decode: seconds for the archive; to encode includes the check that it decodes.
        network: of the seconds to decode, those in the network.
        encode_network: of the seconds to encode, those in the network.
        prefixes: of the archive, the last one exact.
    """

    values: int
    steps: int
    archive: int
    header: int
    spent: Spent
    single: list[int]
    encode: float
    encode_network: float
    decode: float
    network: float
    prefixes: list[Prefix]

    def split(self) -> dict[str, float]:
        """bits/dim of each part of the archive; `rounding` is what fills the last bytes."""
        bits = {
            "channel simulation": sum(self.spent.path),
            "side information": sum(self.spent.side),
            "exact pixels": self.spent.pixels,
            "header": 8 * self.header,
        }
        bits["rounding"] = 8 * self.archive - sum(bits.values())
        return {name: count / self.values for name, count in bits.items()}


@contextmanager
def stopwatch(network: torch.nn.Module) -> Iterator[list[float]]:
    """Collects the seconds of every call of a network."""
    calls: list[float] = []

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    before = network.register_forward_pre_hook(lambda *_: calls.append(-now()))
    after = network.register_forward_hook(lambda *_: calls.append(calls.pop() + now()))
    try:
        yield calls
    finally:
        before.remove()
        after.remove()


def measure_codec(
    model: Ddpm,
    images: UInt8[Tensor, "n c h w"],
    *,
    steps: int | None = None,
    fractions: Sequence[float] = FRACTIONS,
    single: int = SINGLE,
    progress: Progress | None = None,
) -> CodecFigures:
    """Compress, decompress, compare.

    Args:
        model: whose denoising error has been measured.
        images: of the model's format.
        steps: K; chosen by the amount of data by default.
        fractions: of the archive that are decoded, rising.
        single: how many images are also compressed one by one.
        progress: of each part.

    Raises:
        DdpmError: the archive does not give the images back.
    """
    spent = Spent()
    with stopwatch(model.network) as encoding:
        begun = time.perf_counter()
        data = model.compress(list(images), steps=steps, spent=spent, progress=progress)
        encode = time.perf_counter() - begun
    file = parse(data)
    with stopwatch(model.network) as decoding:
        begun = time.perf_counter()
        result = model.decompress(data, progress=progress)
        decode = time.perf_counter() - begun
    check(
        result.exact and torch.equal(torch.stack(result.images), images),
        "the archive did not decode exactly",
    )
    head = len(data) - len(file.payload)
    lengths = [max(round(fraction * len(data)) - head, 0) for fraction in fractions]
    parts = decompress_beginnings(model.for_codec(), file, lengths, progress=progress)
    prefixes = [
        _prefix(head + length, part, images, model.format)
        for length, part in zip(lengths, parts, strict=True)
    ]
    sizes, counter = [], Counter(progress, min(single, len(images)), "single files")
    for image in images[:single]:
        sizes.append(len(model.compress([image])))
        counter.advance()
    return CodecFigures(
        values=images.numel(),
        steps=result.steps,
        archive=len(data),
        header=head,
        spent=spent,
        single=sizes,
        encode=encode,
        encode_network=sum(encoding),
        decode=decode,
        network=sum(decoding),
        prefixes=prefixes,
    )


def _prefix(
    size: int, part: Decompressed, images: UInt8[Tensor, "n c h w"], image_format: ImageFormat
) -> Prefix:
    """What so many bytes have decoded to."""
    seen = part.like(list(images), image_format)
    return Prefix(size, part.steps, byte_mse(torch.stack(seen), images, image_format), seen)
