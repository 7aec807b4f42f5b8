"""Images a second that a core decodes from each form of data, and what training consumes.

    python benchmarks/data.py [--images 2000] [--batches 16]

The images are made up, photograph-like (smooth random fields, discs with hard edges, noise) and of
LSUN's size, 341x256. 200 different ones are repeated, which costs what 2,000 would: nothing decoded
is kept. The files are read again and again, so they come from the page cache: this measures
decoding and the loader, not a disk.

What a GPU consumes is not measured: the network's floating-point operations are counted, and the
part of the peak that training reaches is assumed.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import tyro
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ddpm import get_preset
from ddpm.data import DataOrder, ImageSource, training_batches
from ddpm.data.folder import image_folder
from ddpm.data.lsun import lmdb_images
from ddpm.data.parquet import parquet_images

SIZE, BATCH, DISTINCT = 256, 64, 200
PEAK, ASSUMED_SHARE = 989e12, 0.4  # dense bf16 of an H100 or H200; the part training reaches


@dataclass(frozen=True)
class Options:
    """What to time."""

    images: int = 2000
    """Images in each set."""
    batches: int = 16
    """Batches of 64 that are timed."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Numbers of worker processes; 0 decodes in the main process."""


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """A made-up picture with structure of every size, edges and noise."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 7):
        for channel in range(3):
            field = rng.normal(size=(2**octave + 1,) * 2).astype(np.float32) * 2.0**-octave
            resized = Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(resized)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(20):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        disc = (columns - x) ** 2 + (rows - y) ** 2 < rng.uniform(4, height / 6) ** 2
        pixels[disc] = 0.3 * pixels[disc] + rng.normal(size=3)
    pixels = 128 + 55 * pixels + 9 * rng.normal(size=pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(kind: str, quality: int, width: int, height: int, count: int) -> list[bytes]:
    """`count` photographs as bytes."""

    def one(seed: int) -> bytes:
        buffer = io.BytesIO()
        photograph(width, height, seed).save(buffer, kind, quality=quality)
        return buffer.getvalue()

    return [one(seed) for seed in range(count)]


def repeated(values: list[bytes], count: int) -> Iterator[bytes]:
    """`count` values, the given ones over and over."""
    return (values[i % len(values)] for i in range(count))


def database(folder: Path, values: list[bytes], count: int) -> ImageSource:
    """An LMDB folder like LSUN's, streamed."""
    size = 2 * sum(map(len, values)) * count // len(values) + 2**24
    with lmdb.open(str(folder), map_size=size) as handle, handle.begin(write=True) as transaction:
        for i, value in enumerate(repeated(values, count)):
            transaction.put(f"{i * 7919 % 2**31:040x}".encode(), value)
    return lmdb_images(folder, SIZE, 3, memory_limit=0)


def files(folder: Path, values: list[bytes], count: int) -> ImageSource:
    """A folder of files, streamed."""
    folder.mkdir()
    for i, value in enumerate(repeated(values, count)):
        (folder / f"{i:06d}.jpg").write_bytes(value)
    return image_folder(folder, SIZE, 3, memory_limit=0)


def parquet(folder: Path, values: list[bytes], count: int) -> ImageSource:
    """Two Parquet files with row groups of 100, streamed."""
    folder.mkdir()
    paths = [folder / f"train-{i}.parquet" for i in range(2)]
    for path in paths:
        cells = [{"bytes": value, "path": None} for value in repeated(values, count // 2)]
        pyarrow.parquet.write_table(pyarrow.table({"image": cells}), path, 100)
    return parquet_images(paths, SIZE, 3, "parquet", memory_limit=0)


def images_per_second(source: ImageSource, workers: int, batches: int) -> float:
    """Steady speed: from the moment the workers' first batches are there."""
    order = DataOrder(len(source), BATCH, seed=0)
    ready = 2 * workers  # batches that the loader may have made before it is asked
    stream = training_batches(source, order, 0, batches + 2 * ready + 1, slice(BATCH), workers)
    for _ in islice(stream, ready + 1):
        pass
    begun = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    return batches * BATCH / (time.perf_counter() - begun)


def flops_per_image() -> float:
    """Of a training step with the paper's 256x256 network: forward, and twice that backward."""
    network = get_preset("lsun-church").build_network((3, SIZE, SIZE)).to("meta")
    x = torch.empty(1, 3, SIZE, SIZE, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.zeros(1, dtype=torch.long, device="meta"))
    return 3 * counter.get_total_flops()


def main(options: Options) -> None:
    """Print both tables."""
    flops = flops_per_image()
    needed = ASSUMED_SHARE * PEAK / flops
    print(
        f"The paper's 256x256 network: {flops / 1e12:.2f} TFLOP a training image (counted); at an "
        f"assumed {ASSUMED_SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s a GPU takes {needed:.0f} "
        f"images/s.\n"
    )
    jpeg = encoded("JPEG", 75, 341, 256, DISTINCT)
    webp = encoded("WEBP", 75, 341, 256, DISTINCT)
    fine = encoded("JPEG", 95, 341, 256, DISTINCT)
    large = encoded("JPEG", 90, 1024, 1024, 8)
    forms: list[tuple[str, Callable[..., ImageSource], list[bytes], int]] = [
        ("LMDB, WebP 75, 341x256", database, webp, options.images),
        ("LMDB, JPEG 75, 341x256", database, jpeg, options.images),
        ("folder, JPEG 75, 341x256", files, jpeg, options.images),
        ("folder, JPEG 95, 341x256", files, fine, options.images),
        ("Parquet, JPEG 95, 341x256", parquet, fine, options.images),
        ("folder, JPEG 90, 1024x1024", files, large, 200),
    ]
    heads = [f"{n} workers" if n != 1 else "1 worker" for n in options.workers]
    print(f"| images/s at 256x256 | KB | {' | '.join(heads)} | cores for one such GPU |")
    print("| --- |" + " ---: |" * (len(heads) + 2))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for i, (name, write, values, count) in enumerate(forms):
            source = write(Path(scratch) / str(i), values, count)
            batches = options.batches if count == options.images else max(options.batches // 4, 2)
            # The better of two: other work on the machine can only slow a round down.
            rates = [
                max(images_per_second(source, n, batches) for _ in range(2))
                for n in options.workers
            ]
            size = sum(map(len, values)) / len(values) / 1000
            cells = " | ".join(f"{rate:.0f}" for rate in rates)
            print(f"| {name} | {size:.0f} | {cells} | {needed / rates[0]:.1f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Options, description=__doc__))
