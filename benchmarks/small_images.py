"""Small images as an archive and as single files: this codec beside PNG, WebP and JPEG XL.

    python benchmarks/small_images.py cifar10-small PATH/TO/CIFAR-10 [--images 256]

The first test images, without names. An archive of another format is one picture of all of them
side by side. Single files are told with their standard error. Below: where the bits go, and what
the archive takes without one or another part of the design.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor

from ddpm import load, open_data
from ddpm.codec import CodecModel, Spent, compress, decompress, parse
from ddpm.codec.snapping import Grid
from ddpm.evaluation.image_formats import available_formats, lossless_bytes


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: tyro.conf.Positional[str]
    """A measured model."""
    data: tyro.conf.Positional[Path]
    """Images of its format with a test split."""
    images: int = 256
    """The first of the test split."""
    ablation: int = 64
    """Of them, for the table of what each part gains."""


def single(sizes: Sequence[int], images: Tensor) -> str:
    """Mean and standard error in bits/dim of files of one image each."""
    bpd = 8 * np.array(sizes) / images[0].numel()
    return f"{bpd.mean():.3f} ± {bpd.std(ddof=1) / len(bpd) ** 0.5:.3f}"


def formats(images: UInt8[Tensor, "n c h w"], model: CodecModel) -> None:
    """A row for each lossless format."""
    for name, kind in available_formats().items():
        if kind.lossless is not None:
            archive = 8 * lossless_bytes(images, model.format, name) / images.numel()
            each = [lossless_bytes(image[None], model.format, name) for image in images]
            print(f"| {name} | {archive:.3f} | {single(each, images)} |", flush=True)


def split(spent: Spent, data: bytes, values: int) -> str:
    """Where the bits of files went, in bits/dim."""
    header = 8 * (len(data) - parse(data).header.length)
    path, side = sum(spent.path) / values, sum(spent.side) / values
    return (
        f"KL {sum(spent.kl) / values:.4f}, path {path:.4f}, its counts {side:.5f}, "
        f"last stage {spent.pixels / values:.4f}, header {header / values:.5f}"
    )


def own(images: UInt8[Tensor, "n c h w"], model: CodecModel) -> None:
    """Our row, and below the table where the bits are and how fast it was."""
    archive, singles, each = Spent(), Spent(), list(images)
    begun = time.perf_counter()
    data = compress(model, each, spent=archive)
    encoded = time.perf_counter()
    assert decompress(model, data).exact
    decoded = time.perf_counter()
    sizes = [len(compress(model, [image], spent=singles)) for image in each]
    one = compress(model, each[:1])
    bpd = 8 * len(data) / images.numel()
    print(f"| this codec | {bpd:.3f} | {single(sizes, images)} |\n")
    print(f"archive: {split(archive, data, images.numel())}")
    print(f"single: {split(singles, one, images.numel())}")
    n, threads = len(each), torch.get_num_threads()
    print(
        f"{threads} threads: archive encoded {n / (encoded - begun):.2f} images/s, decoded "
        f"{n / (decoded - encoded):.2f}, single files encoded "
        f"{n / (time.perf_counter() - decoded):.2f}\n",
        flush=True,
    )


def ablation(images: UInt8[Tensor, "n c h w"], model: CodecModel, pixels: CodecModel) -> None:
    """The archive with one part of the design changed."""
    coding, numel = model.coding, images.numel()
    coarse = replace(coding.last_stage, grid=Grid(2, coding.last_stage.grid.block))
    ways: dict[str, Callable[[], bytes]] = {
        "as it is": lambda: compress(model, list(images)),
        "variances of pixels": lambda: compress(pixels, list(images)),
        "no margin": lambda: compress(changed(model, margin=0.0), list(images)),
        "cells half as wide, for which it was not trained": lambda: compress(
            changed(model, last_stage=coarse), list(images)
        ),
        **{
            f"path to t = {t}": lambda t=t: compress(model, list(images), last_timestep=t)
            for t in (15, 20, 30, 60, 100)
        },
        **{
            f"{k} steps": lambda k=k: compress(model, list(images), steps=k) for k in (4, 6, 20, 40)
        },
    }
    print(f"| {len(images)} images, archive | bits/dim |\n| --- | --- |")
    for name, way in ways.items():
        print(f"| {name} | {8 * len(way()) / numel:.4f} |", flush=True)


def changed(model: CodecModel, **options: object) -> CodecModel:
    """The same with another coding."""
    return replace(model, coding=replace(model.coding, **options))  # type: ignore[arg-type]


def main(options: Options) -> None:
    """Print everything."""
    whole = load(options.model, device="cpu")
    model = whole.for_codec()
    images = open_data(options.data, "test")[torch.arange(options.images)]
    print(f"test images 0..{options.images - 1}\n")
    print("| lossless | archive, bits/dim | single files, bits/dim |\n| --- | --- | --- |")
    formats(images, model)
    own(images, model)
    whole.coding = replace(model.coding, spectral=False)
    if options.ablation:
        ablation(images[: options.ablation], model, whole.for_codec())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
