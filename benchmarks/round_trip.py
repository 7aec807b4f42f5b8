"""Every held-out digit through the codec and back, in two processes; some files cut everywhere.

    python benchmarks/round_trip.py runs/demo [--images 297] [--truncated 20]

A first process compresses each digit to a file of its own and all of them to one archive. A second
one, which has only the run and the files, decompresses them and compares every pixel. Then it
decodes the first files cut at every byte: none may fail, and the error averaged over the files
must not grow with the share of the bytes by more than noise.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from ddpm import load
from ddpm.codec import CodecModel, compress, decompress, parse
from ddpm.data.digits import digits
from ddpm.data.images import byte_mse

SHARES = 10  # parts of a file's length over which errors are averaged


@dataclass(frozen=True)
class Options:
    """What to check."""

    run: tyro.conf.Positional[Path]
    """A run of the digits preset."""
    images: int = 297
    """Held-out digits."""
    truncated: int = 20
    """Files that are cut at every byte."""
    role: Literal["both", "encoder", "decoder"] = "both"
    """Set by the script for its two processes."""
    folder: Path | None = None
    """The same."""


def encode(options: Options, folder: Path) -> None:
    """Write the archive and one file a digit."""
    model, images = load(options.run).for_codec(), list(digits("test").images[: options.images])
    (folder / "archive").write_bytes(compress(model, images))
    for i, image in enumerate(images):
        (folder / f"{i:03d}").write_bytes(compress(model, [image]))


def decode(options: Options, folder: Path) -> None:
    """Read them back, whole and cut."""
    model, images = load(options.run).for_codec(), digits("test").images[: options.images]
    archive = (folder / "archive").read_bytes()
    files = [(folder / f"{i:03d}").read_bytes() for i in range(len(images))]
    whole = torch.stack(decompress(model, archive).images)
    singly = torch.stack([decompress(model, data).images[0] for data in files])
    sizes = np.array([len(data) for data in files])
    headers = sizes - [parse(data).header.length for data in files]
    dims = images[0].numel()
    print(
        f"archive: {len(archive):,} bytes, {8 * len(archive) / images.numel():.3f} bits/dim, "
        f"{int((whole == images).flatten(1).all(1).sum())} of {len(images)} digits exact\n"
        f"single files: {sizes.mean():.1f} bytes, {8 * sizes.mean() / dims:.3f} bits/dim, "
        f"header {headers.mean():.1f} bytes (most {headers.max()}), "
        f"{int((singly == images).flatten(1).all(1).sum())} of {len(images)} digits exact; "
        f"stored without the model: {sum(parse(data).header.stored for data in files)}"
    )
    if options.truncated:
        truncate(model, files[: options.truncated], images)


def truncate(model: CodecModel, files: list[bytes], images: torch.Tensor) -> None:
    """Decode every file cut at every byte of its payload; print the error by share of the file."""
    errors: list[list[float]] = [[] for _ in range(SHARES + 1)]
    decoded = 0
    for data, image in zip(files, images, strict=False):
        payload = parse(data).header.length
        for kept in range(payload + 1):
            result = decompress(model, data[: len(data) - payload + kept])
            mse = byte_mse(result.images[0], image, model.format)
            errors[SHARES * kept // payload].append(mse)
            decoded += 1
    rmse = [np.sqrt(np.mean(part)) for part in errors]
    print(f"{decoded:,} truncations of {len(files)} files decoded, none failed")
    print("RMSE on 0..255 by tenths of the payload: " + ", ".join(f"{x:.1f}" for x in rmse))
    grown = max(b / a - 1 for a, b in itertools.pairwise(rmse) if a > 0)
    print(f"largest growth from one tenth to the next: {grown:+.1%}")


def main(options: Options) -> None:
    """Run both processes, or one of them."""
    if options.role != "both":
        assert options.folder is not None
        {"encoder": encode, "decoder": decode}[options.role](options, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        for role in ("encoder", "decoder"):
            again = [sys.executable, *sys.argv, "--role", role, "--folder", folder]
            subprocess.run(again, check=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
