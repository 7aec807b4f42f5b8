"""How often a file fails to decode when the decoder computes otherwise than the encoder.

    python benchmarks/same_numbers.py runs/demo [--files 40] [--images 32]

The format fixes batch size and thread count because they change the last digits of floating-point
sums. Here the decoder ignores what it is told, on purpose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from ddpm import DdpmError, load
from ddpm.codec import archive, compress, decompress, parse, transmission
from ddpm.data.digits import digits


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """A run of the digits preset."""
    files: int = 40
    """Archives, each of other digits."""
    images: int = 32
    """Digits an archive."""


@contextlib.contextmanager
def decoder(threads: int | None, batch: int | None) -> Iterator[None]:
    """A decoder with another thread count or batch size than the file asks for."""
    setting, size = archive.threads, transmission.BATCH
    if threads is not None:
        archive.threads = lambda _: setting(threads)
    if batch is not None:
        transmission.BATCH = batch
    try:
        yield
    finally:
        archive.threads, transmission.BATCH = setting, size


def main(options: Options) -> None:
    """Encode once, decode in every way."""
    model = load(options.run).for_codec()
    everything = torch.cat([digits("train").images, digits("test").images])
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    sets = [
        [everything[i] for i in order[n * options.images :][: options.images]]
        for n in range(options.files)
    ]
    files = [compress(model, images) for images in sets]
    stored = sum(parse(data).header.steps == 0 for data in files)
    print(f"{options.files} archives of {options.images} digits, {torch.get_num_threads()} threads")
    print(f"encoded without a decoding failure: {options.files - stored}")
    print("| the decoder uses | files not exact |\n| --- | --- |")
    ways = {
        "what the file says": (None, None),
        **{f"{n} threads": (n, None) for n in (1, 2, 3, 4, 8)},
        **{f"batches of {n}": (None, n) for n in (1, 7, 16, 256)},
    }
    for name, way in ways.items():
        failed = 0
        with decoder(*way):
            for data in files:
                try:
                    decompress(model, data)
                except DdpmError:
                    failed += 1
        print(f"| {name} | {failed} of {len(files)} |", flush=True)
    model.network.forward = torch.compile(model.network.forward, dynamic=True)
    failed = 0
    for data in files:
        try:
            decompress(model, data)
        except DdpmError:
            failed += 1
    print(f"| torch.compile | {failed} of {len(files)} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
