"""What the beginning of a file shows, beside lossy files of as many bytes: PSNR and SSIM.

    python benchmarks/lossy.py cifar10-small PATH/TO/CIFAR-10 [--images 64] [--ends 42 20 10]
    python benchmarks/lossy.py cifar10-small PICTURE.png [--ends 42 20 10]

The first test images as one file without names, or one picture, which may have any size. SSIM is
that of Wang et al. 2004 (scikit-image, which this needs besides), a Gaussian window of 1.5 pixels,
mean over the images. JPEG and the others store all images as one picture, a column of them, and
are taken at the best quality of at most as many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import tyro
from skimage.metrics import structural_similarity
from torch import Tensor

from ddpm import load, open_data
from ddpm.codec import CodecModel, Reconstruct, compress, decompress_beginnings, parse
from ddpm.data.exact_files import read_images
from ddpm.data.images import ImageFormat, psnr
from ddpm.evaluation.image_formats import Pixels, available_formats, lossy_files, sheet

BITS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4)  # bits/dim of the beginnings


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: tyro.conf.Positional[str]
    """A measured model."""
    data: tyro.conf.Positional[Path]
    """Images of its format with a test split, or one picture."""
    images: int = 64
    """The first of the test split."""
    ends: tuple[int, ...] = ()
    """Timesteps at which the last stage takes over, besides where it does by default."""
    bits: tuple[float, ...] = BITS
    """bits/dim of the beginnings."""
    kinds: tuple[Reconstruct, ...] = get_args(Reconstruct)
    """How beginnings are completed."""


def quality(shown: Pixels, wanted: Pixels) -> str:
    """PSNR and mean SSIM of pictures of one size, one below the other."""
    mse = float(np.square(shown.astype(float) - wanted).mean())
    if mse == 0:
        return "exact"
    height = min(wanted.shape[1], wanted.shape[0])
    similar = [
        structural_similarity(
            a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(cells(shown, height), cells(wanted, height), strict=True)
    ]
    return f"{psnr(mse):.2f}, {np.mean(similar):.4f}"


def cells(column: Pixels, height: int) -> Sequence[Pixels]:
    """The images of a column of square ones; a picture of another form is one."""
    rows = len(column)
    return np.split(column, rows // height) if rows % height == 0 else [column]


def classical(wanted: Pixels, sizes: Sequence[int]) -> dict[str, list[str]]:
    """For each format the best within each number of bytes."""
    found = {}
    for name in available_formats():
        files = lossy_files(wanted, name)
        if not files:
            continue
        errors = [float(np.square(back.astype(float) - wanted).mean()) for _, back in files]
        rows = []
        for size in sizes:
            fits = [i for i, (n, _) in enumerate(files) if n <= size]
            best = min(fits, key=errors.__getitem__, default=None)
            rows.append("" if best is None else quality(files[best][1], wanted))
        found[name] = rows
    return found


def own(
    model: CodecModel,
    images: Sequence[Tensor],
    end: int | None,
    sizes: Sequence[int],
    kinds: Sequence[Reconstruct],
) -> dict[str, list[str]]:
    """For each way to complete a beginning what it shows at each number of bytes."""
    data = compress(model, images, last_timestep=end)
    file, found = parse(data), {}
    route = file.header.route or model.coding.route
    values = sum(image.numel() for image in images)
    head = len(data) - len(file.payload)
    print(
        f"to t = {route.last} in {route.steps} calls: {len(data):,} bytes, "
        f"{8 * len(data) / values:.4f} bits/dim",
        flush=True,
    )
    wanted = column(images, model.format)
    lengths = [min(max(size - head, 0), len(file.payload)) for size in sizes]
    for kind in kinds:
        parts = decompress_beginnings(model, file, lengths, reconstruct=kind)
        shown = [column(part.like(images, model.format), model.format) for part in parts]
        found[f"{kind}, t = {route.last}"] = [quality(one, wanted) for one in shown]
    return found


def column(images: Sequence[Tensor], image_format: ImageFormat) -> Pixels:
    """Images of one size below each other."""
    return sheet(torch.stack(list(images)), image_format)


def main(options: Options) -> None:
    """Print the table."""
    model = load(options.model, device="cpu").for_codec()
    if options.data.is_file():
        images = read_images(options.data, model.format, convert=True).images
    else:
        images = list(open_data(options.data, "test")[torch.arange(options.images)])
    values = sum(image.numel() for image in images)
    sizes = [round(bits * values / 8) for bits in options.bits]
    table: dict[str, list[str]] = {}
    for end in (None, *options.ends):
        table |= own(model, images, end, sizes, options.kinds)
    table |= classical(column(images, model.format), sizes)
    print(f"\n| bits/dim | {' | '.join(table)} |\n| {' --- |' * (1 + len(table))}")
    for bits, *row in zip(options.bits, *table.values(), strict=True):
        print(f"| {bits} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
