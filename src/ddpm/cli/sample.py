"""`ddpm sample RUN`: draw images from a trained model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from torch import Tensor

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.cli.sample_folder import describe, draw_into, missing_images
from ddpm.data.exact_files import save_png
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.figures.grid import image_grid
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, check_writable
from ddpm.runtime.device import Precision
from ddpm.runtime.paths import exists, user_path
from ddpm.sampling import Sampler, get_sampler

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
    out: Path | None = None
    """A .png (one grid), an .npz (array `images`, uint8 [n, h, w, c]), or a folder of PNGs, which
    fills as they are drawn and is gone on with by the same command; samples.png by default."""
    progressive: bool = False
    """Also draw the predicted x_0 of the first eight images over time, beside --out."""


def run(argv: Sequence[str]) -> int:
    """Parse, sample, write, say what was made."""
    name, rest = positional(argv, "a run or checkpoint", "sample")
    args = parse(Sample, rest, f"sample {name or 'RUN'}")
    check(args.n >= 1, f"-n must be at least 1, got {args.n}")
    check(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")
    check(args.batch_size >= 1, f"--batch-size must be at least 1, got {args.batch_size}")
    get_sampler(args.sampler, args.eta)
    out = free_name(Path("samples.png")) if args.out is None else user_path(args.out)
    check(
        out.suffix in (".png", ".npz", ""),
        f"--out must end in .png or .npz or be a folder, got {out}",
    )
    model = load(name, precision=args.precision)
    strip = out.with_name(f"{out.stem}-progressive.png")
    for path in [out] * bool(out.suffix) + [strip] * args.progressive:
        check(
            not exists(path),
            f"{path} is there already and is not overwritten; choose another --out",
        )
    sampler, plan = model.plan_samples(args.sampler, args.plan, eta=args.eta)
    steps = model.chain(plan).num_timesteps
    recorder = ProgressiveRecorder(min(args.n, STRIP), model.format, steps)
    with progress_bar() as progress:
        options: dict[str, Any] = {
            "seed": args.seed,
            "batch_size": args.batch_size,
            "callback": recorder if args.progressive else None,
            "progress": progress,
        }
        if out.suffix:
            parallel.on_main(lambda: check_writable(out.parent))
            images = model.sample(args.n, sampler=sampler, plan=args.plan, **options)
            parallel.on_main(lambda: write(images, model.format, out))
            drawn = args.n
        else:
            drawn = fill(out, model, args, sampler, plan, options)
    eta = "" if args.eta is None else f" (eta {args.eta:g})"
    known = f", {args.n - drawn} of which were there" if drawn < args.n else ""
    how = str(plan).replace("all steps", f"all {steps:,} steps")
    say(f"{args.n} images in {out}{known}: {args.sampler}{eta}, {how}")
    if args.progressive:
        frames = recorder.frames()
        parallel.on_main(lambda: save_png(progressive_strip(frames, model.format), strip))
        say(f"their progressive generation in {strip}")
    return 0


def free_name(path: Path) -> Path:
    """A name that nothing has yet: samples.png, samples-1.png, ..."""
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in itertools.count(1))
    return next(name for name in itertools.chain([path], names) if not exists(name))


def fill(
    folder: Path, model: Ddpm, args: Sample, sampler: Sampler, plan: Plan, options: dict[str, Any]
) -> int:
    """Draw what a folder lacks; how many that were."""
    wanted = describe(model, args.sampler, args.eta, plan, args.seed)
    missing = missing_images(folder, args.n, wanted)
    check(
        not args.progressive or len(missing) == args.n,
        f"{folder} holds some of the images already, of which no strip can be drawn; leave "
        "--progressive out",
    )
    try:
        draw_into(folder, model, model.draw(missing, sampler, plan, **options))
    except KeyboardInterrupt:
        say(f"the images that are finished are in {folder}; the same command goes on with it")
        raise
    return len(missing)


def write(images: Tensor, image_format: ImageFormat, out: Path) -> None:
    """The images as one grid or one array, by the ending of `out`."""
    if out.suffix == ".png":
        save_png(image_grid(images, image_format), out)
        return

    # np.savez appends .npz to a bare name, so it is given an open file instead.
    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, images=images.permute(0, 2, 3, 1).numpy())

    atomically(out, save)
