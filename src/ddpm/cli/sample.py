"""`ddpm sample RUN`: draw images from a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from torch import Tensor

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.config import Precision
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.figures.grid import image_grid, to_display
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.model import load
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, check_writable
from ddpm.sampling import SampleState, get_sampler


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained model."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many images."""
    sampler: str = "ancestral"
    """ancestral (the paper's Algorithm 2), ddim, dpm-solver or langevin."""
    steps: int | None = None
    """Timesteps to visit; all T of the model by default."""
    trajectory: str = "even"
    """Which timesteps: even, quadratic or optimal."""
    variance: str | None = None
    """fixed_small, fixed_large or analytic; the model's own by default."""
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
    check(args.batch_size >= 1, f"--batch-size must be at least 1, got {args.batch_size}")
    check(args.steps is None or args.steps >= 1, f"--steps must be at least 1, got {args.steps}")
    get_sampler(args.sampler)
    check(args.eta is None or args.sampler == "ddim", "--eta belongs to --sampler ddim")
    out = args.out.expanduser()
    check(
        out.suffix in (".png", ".npz", ""),
        f"--out must end in .png or .npz or be a folder, got {out}",
    )
    model = load(name, precision=args.precision)
    steps = model.chain(args.steps, args.trajectory, args.variance).num_timesteps
    parallel.on_main(lambda: check_writable(out.parent if out.suffix else out))
    batches = len(parallel.share(args.n)[:: args.batch_size])
    recorder = ProgressiveRecorder(args.n, model.facts.grey_levels)
    with progress_bar("network calls") as bar:
        task = bar.add_task("sampling", total=batches * steps, note="")

        def callback(state: SampleState) -> None:
            bar.advance(task)
            if args.progressive:
                recorder(state)

        options = {} if args.eta is None else {"eta": args.eta}
        images = model.sample(
            args.n,
            seed=args.seed,
            sampler=args.sampler,
            steps=args.steps,
            trajectory=args.trajectory,
            variance=args.variance,
            batch_size=args.batch_size,
            callback=callback,
            **options,
        )
    parallel.on_main(lambda: write(images, model.facts.grey_levels, out))
    say(f"{args.n} images in {out}")
    if args.progressive:
        path = out.with_name(f"{out.stem}-progressive.png")
        levels = model.facts.grey_levels
        parallel.on_main(lambda: save_png(progressive_strip(recorder.frames(), levels), path))
        say(f"their progressive generation in {path}")
    return 0


def write(images: Tensor, grey_levels: int, out: Path) -> None:
    """The images as one grid, one array, or a folder of PNGs, by the ending of `out`."""
    if out.suffix == ".png":
        save_png(image_grid(images, grey_levels), out)
    elif out.suffix == ".npz":
        # np.savez appends .npz to a bare name, so it is given an open file instead.
        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez(file, images=images.permute(0, 2, 3, 1).numpy())

        atomically(out, save)
    else:
        for i, pixels in enumerate(to_display(images, grey_levels)):
            save_png(Image.fromarray(pixels), out / f"{i:06d}.png")
