"""`ddpm sample RUN`: draw images from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from torch import Tensor

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.data.exact_files import save_png
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.figures.grid import image_grid
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, check_writable
from ddpm.runtime.device import Precision
from ddpm.sampling import Ddim, Sampler, get_sampler

STRIP = 8  # images of a progressive strip


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained model."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many images."""
    sampler: str = "ancestral"
    """ancestral (the paper's Algorithm 2), ddim, dpm-solver or langevin."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    eta: float | None = None
    """Noise of ddim: 0 is deterministic (the default), 1 is ancestral-like."""
    seed: int = 0
    """Which images; the i-th of a seed is the same whatever -n and --batch-size."""
    batch_size: int = 64
    """Images at a time."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16; what it was trained in by default."""
    out: Path = Path("samples.png")
    """A .png (one grid), an .npz (array `images`, uint8 [n, h, w, c]), or a folder of PNGs."""
    progressive: bool = False
    """Also draw the predicted x_0 of the first eight images over time, beside --out."""


def run(argv: Sequence[str]) -> int:
    """Parse, sample, write, say what was made."""
    name, rest = positional(argv, "a run or checkpoint", "sample")
    args = parse(Sample, rest, f"sample {name or 'RUN'}")
    check(args.n >= 1, f"-n must be at least 1, got {args.n}")
    sampler = make_sampler(args.sampler, args.eta)
    out = args.out.expanduser()
    check(
        out.suffix in (".png", ".npz", ""),
        f"--out must end in .png or .npz or be a folder, got {out}",
    )
    model = load(name, precision=args.precision)
    steps = model.chain(args.plan).num_timesteps
    parallel.on_main(lambda: check_writable(out.parent if out.suffix else out))
    recorder = ProgressiveRecorder(min(args.n, STRIP), model.format, steps)
    with progress_bar() as progress:
        images = model.sample(
            args.n,
            seed=args.seed,
            sampler=sampler,
            plan=args.plan,
            batch_size=args.batch_size,
            callback=recorder if args.progressive else None,
            progress=progress,
        )
    parallel.on_main(lambda: write(images, model.format, out))
    say(f"{args.n} images in {out}")
    if args.progressive:
        path, frames = out.with_name(f"{out.stem}-progressive.png"), recorder.frames()
        parallel.on_main(lambda: save_png(progressive_strip(frames, model.format), path))
        say(f"their progressive generation in {path}")
    return 0


def make_sampler(name: str, eta: float | None) -> Sampler:
    """The sampler that the options name."""
    check(eta is None or name == "ddim", "--eta belongs to --sampler ddim")
    return get_sampler(name) if eta is None else Ddim(eta)


def write(images: Tensor, image_format: ImageFormat, out: Path) -> None:
    """The images as one grid, one array, or a folder of PNGs, by the ending of `out`."""
    if out.suffix == ".png":
        save_png(image_grid(images, image_format), out)
    elif out.suffix == ".npz":
        # np.savez appends .npz to a bare name, so it is given an open file instead.
        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, images=images.permute(0, 2, 3, 1).numpy())

        atomically(out, save)
    else:
        for i, pixels in enumerate(image_format.to_display(images)):
            save_png(Image.fromarray(pixels), out / f"{i:06d}.png")
