"""Time and memory of compressing and decompressing: sizes and numbers of images, threads.

    python benchmarks/codec_sizes.py cifar10-small PICTURE.png [--sizes 32 64 128 256 512]

Squares cut from the middle of one picture, and the tiles of its largest square as an archive. Each
row is a process of its own, so that its highest memory is its own too; what it takes before the
first image (imports, model, compiled code) is told apart. Another checkout on PYTHONPATH measures
that one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor

from ddpm import load

TILE = 32


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: tyro.conf.Positional[str]
    """A measured model of colour images."""
    picture: tyro.conf.Positional[Path]
    """A picture of at least the largest size."""
    sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Pixels along the side of one image."""
    images: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of images of 32x32 pixels in one file."""
    threads: tuple[int, ...] = (1, 2)
    row: tuple[int, int, int] | None = None
    """Number, size and threads: set by the script for its processes."""


def squares(path: Path, count: int, size: int) -> list[Tensor]:
    """So many squares of the picture, side by side around its middle."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    columns = int(np.ceil(count**0.5))
    rows = -(-count // columns)
    top, left = ((a - b * size) // 2 for a, b in zip(pixels.shape, (rows, columns), strict=False))
    places = [(top + i // columns * size, left + i % columns * size) for i in range(count)]
    found = [pixels[a : a + size, b : b + size] for a, b in places]
    assert all(square.shape == (size, size, 3) for square in found), "the picture is too small"
    return [torch.from_numpy(square.copy()).permute(2, 0, 1) for square in found]


def memory() -> float:
    """The highest of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options: Options, count: int, size: int, threads: int) -> None:
    """One row, as JSON."""
    torch.set_num_threads(threads)
    model = load(options.model, device="cpu")
    images = squares(options.picture, count, size)
    model.decompress(model.compress([images[0][:, :8, :8]]))
    before, begun = memory(), time.perf_counter()
    data = model.compress(images)
    encoded = time.perf_counter()
    assert model.decompress(data).exact
    decoded = time.perf_counter()
    told = [encoded - begun, decoded - encoded, before, memory(), len(data)]
    print(json.dumps(told), flush=True)


def main(options: Options) -> None:
    """Print the table, or one row of it."""
    if options.row is not None:
        measure(options, *options.row)
        return
    print("| images | threads | in, s | out, s | in, tiles/s | out, tiles/s | MiB | bits/dim |")
    print(f"|{' --- |' * 8}")
    cells = [(1, size) for size in options.sizes] + [(n, TILE) for n in options.images]
    for threads in options.threads:
        for count, size in cells:
            row = ["--row", str(count), str(size), str(threads)]
            call = [sys.executable, *sys.argv, *row]
            done = subprocess.run(call, check=True, capture_output=True, text=True)
            encode, decode, before, after, stored = json.loads(done.stdout.splitlines()[-1])
            tiles = count * (size / TILE) ** 2
            bpd = 8 * stored / (3 * count * size**2)
            print(
                f"| {count} of {size}x{size} | {threads} | {encode:.2f} | {decode:.2f} | "
                f"{tiles / encode:.1f} | {tiles / decode:.1f} | {before:.0f} + {after - before:.0f}"
                f" | {bpd:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
