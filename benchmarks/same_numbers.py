"""Whether files decode where arithmetic goes another way: random images, random decoders.

    python benchmarks/same_numbers.py cifar10-small [--images 1000]

One process compresses random small images, one file each; for each of the settings below another
one decodes its share of them and compares every pixel.
"""

from __future__ import annotations

import json
import os
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
from ddpm.codec import compress, decompress, parse, transmission

SETTINGS: list[dict[str, str]] = [
    {},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"},
    {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "3"},
    {"OMP_NUM_THREADS": "1", "BATCH": "1"},
    {"OMP_NUM_THREADS": "2", "BATCH": "7"},
    {"NUMBA_CPU_NAME": "generic", "BATCH": "256"},
]


@dataclass(frozen=True)
class Options:
    """What to check."""

    model: tyro.conf.Positional[str]
    """A measured model or run."""
    images: int = 1000
    """Random images, 1 to 2 tiles wide and high."""
    largest: int = 40
    """Pixels along a side."""
    role: Literal["all", "encoder", "decoder"] = "all"
    """Set by the script for its processes."""
    folder: Path | None = None
    """The same."""
    part: int = 0
    """The same."""


def encode(options: Options, folder: Path) -> None:
    """Write one file for each image, and the image."""
    model, random = load(options.model, device="cpu").for_codec(), np.random.default_rng(0)
    total = stored = 0
    for i in range(options.images):
        size = random.integers(1, options.largest + 1, 2)
        image = smooth(random, (model.format.channels, *size), model.format.levels)
        steps = None if random.integers(2) else int(random.integers(2, 7))
        data = compress(model, [image], steps=steps)
        total, stored = total + len(data), stored + parse(data).header.stored
        (folder / f"{i:05d}.ddpm").write_bytes(data)
        np.save(folder / f"{i:05d}.npy", image.numpy())
    print(f"{options.images} files, {total:,} bytes, {stored} of them stored without the model")


def smooth(random: np.random.Generator, shape: tuple[int, ...], levels: int) -> torch.Tensor:
    """A picture of random smoothness and contrast, flat and noisy ones among them."""
    noise = torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    width = int(2 * random.integers(0, 4) + 1)
    blurred = torch.nn.functional.avg_pool2d(noise, width, 1, width // 2, count_include_pad=False)
    values = levels * (0.5 + random.uniform(0, 0.4) * width * blurred + random.normal(0, 0.2))
    return values.round().clamp(0, levels - 1).to(torch.uint8)


def decode(options: Options, folder: Path) -> None:
    """Decode every tenth file from `part` on, and say how many came back."""
    transmission.BATCH = int(os.environ.get("BATCH", transmission.BATCH))
    model = load(options.model, device="cpu").for_codec()
    exact = 0
    files = sorted(folder.glob("*.ddpm"))[options.part :: len(SETTINGS)]
    for path in files:
        (image,) = decompress(model, path.read_bytes()).images
        exact += np.array_equal(image.numpy(), np.load(path.with_suffix(".npy")))
    print(json.dumps(SETTINGS[options.part]), f"{exact} of {len(files)} exact", flush=True)


def main(options: Options) -> None:
    """Run all processes, or one of them."""
    if options.role != "all":
        assert options.folder is not None
        {"encoder": encode, "decoder": decode}[options.role](options, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        again = [sys.executable, *sys.argv, "--folder", folder]
        subprocess.run([*again, "--role", "encoder"], check=True)
        for part, setting in enumerate(SETTINGS):
            call = [*again, "--role", "decoder", "--part", str(part)]
            subprocess.run(call, check=True, env=os.environ | setting)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
