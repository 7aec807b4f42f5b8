"""The memory that the paper's 256x256 network of 113.7M parameters takes, command by command.

    python benchmarks/memory_256.py [--limit 6]

A model of random weights is written as a pipeline of diffusers into a temporary folder and imported
from there. Then each command works on one image in a process of its own, and the highest memory
that was resident in that process is told. Random weights cost the codec more bits than any trained
ones, and so more memory. The last row is what measuring the usual 750 images adds to the network:
it is called there for none of them.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image

from ddpm import Ddpm, get_preset, load
from ddpm.data.images import ImageFormat
from ddpm.interop.export import export_diffusers
from ddpm.likelihood.denoising_error import IMAGES, measure_denoising_error

FORMAT = ImageFormat(3, 256, 256)
DDPM = [sys.executable, "-m", "ddpm"]
COMMANDS = {
    "measure, 4 timesteps": ["measure", "run", "--data", "images", "--timesteps", "4"],
    "evaluate --bpd, 4 steps": ["evaluate", "run", "--bpd", "--steps", "4", "--split", "train"],
    "sample, 2 steps": ["sample", "run", "-n", "2", "--sampler", "ddim", "--steps", "2"],
    "compress, 4 steps": ["compress", "run", "images", "-o", "x.ddpm", "--steps", "4"],
    "decompress": ["decompress", "run", "x.ddpm", "-o", "back"],
}


@dataclass(frozen=True)
class Options:
    """What is allowed."""

    limit: float = 6.0
    """GB that no process may reach."""
    role: Literal["all", "build", "call", "sums"] = "all"
    """Set by the script for its own processes."""


def build() -> None:
    """Write the run and the image."""
    network = get_preset("celebahq").build_network(FORMAT.shape).requires_grad_(False)
    export_diffusers(Ddpm(get_preset("celebahq"), FORMAT, network), Path("theirs"), "random")
    ramp = np.linspace(0, 6, 256)
    waves = np.sin(ramp[:, None, None] * [1, 2, 3] + ramp[None, :, None] * [3, 2, 1])
    noise = np.random.default_rng(0).normal(0, 4, (256, 256, 3))
    Path("images").mkdir()
    Image.fromarray((127 + 100 * waves + noise).round().astype(np.uint8)).save("images/one.png")


def call() -> None:
    """Load the model and call its network once."""
    model = load("run")
    output = model.denoiser()(torch.zeros(1, *FORMAT.shape), torch.tensor([500]))
    print(f"{model.num_parameters:,} parameters, output {tuple(output.shape)}")


def sums() -> None:
    """Measure as many images as `ddpm measure` does by default, at two timesteps, of a network that
    does nothing."""
    diffusion = get_preset("celebahq").diffusion.build()
    images = torch.zeros(IMAGES, *FORMAT.shape, dtype=torch.uint8)
    measure_denoising_error(diffusion, lambda x, t: x, images, FORMAT, timesteps=2)


def peak(command: list[str], folder: str) -> tuple[float, float]:
    """GB that were resident at most in a process, and the seconds it took."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_maxrss * 1024 / 1e9, time.perf_counter() - begun


def same(folder: Path) -> bool:
    """Whether what was decompressed is what was compressed."""
    (found,) = (folder / "back").iterdir()
    return np.array_equal(Image.open(found), Image.open(folder / "images" / "one.png"))


def main(options: Options) -> None:
    """Run one process, or all of them in order and print the table."""
    roles: dict[str, Callable[[], None]] = {"build": build, "call": call, "sums": sums}
    if options.role != "all":
        roles[options.role]()
        return
    script, most = [sys.executable, str(Path(__file__).resolve()), "--role"], 0.0
    rows = {
        "import": [*DDPM, "import", "theirs", "--out", "run"],
        "load, one network call": [*script, "call"],
    }
    rows |= {name: [*DDPM, *command] for name, command in COMMANDS.items()}
    rows[f"sums of {IMAGES} images"] = [*script, "sums"]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, fp32")
    print("| one image of 256x256 | GB | s |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        peak([*script, "build"], folder)
        for name, command in rows.items():
            size, seconds = peak(command, folder)
            most = max(most, size)
            print(f"| {name} | {size:.2f} | {math.ceil(seconds)} |", flush=True)
        exact = same(Path(folder))
    print(f"decompressed pixels {'equal' if exact else 'NOT EQUAL'} to the image's")
    if most >= options.limit or not exact:
        raise SystemExit(f"{most:.2f} GB where {options.limit:g} are allowed")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
