"""`ddpm evaluate RUN`: measure a trained model on images it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from ddpm.cli.data import as_tensor, open_for
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.cli.results import result_path, settings, write_bound
from ddpm.data.exact_files import save_png
from ddpm.data.images import FirstImages, ImageSource, unit_to_byte_rmse
from ddpm.data.open import Split
from ddpm.errors import check
from ddpm.evaluation import check_frechet, pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.figures.codec_plots import comparison_pictures
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import predicted_bpd
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime import parallel
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.device import Precision
from ddpm.runtime.paths import user_path
from ddpm.runtime.progress import Progress
from ddpm.sampling import get_sampler

BLOCKS = 10  # stretches of time in the table
BATCH = 256  # images in one network call


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model: bits/dim (Eq. 5), rate-distortion (Figure 5), the real codec, and
    how far its samples are from the images."""

    bpd: bool = False
    """Measure the variational bound in bits/dim, term by term."""
    codec: bool = False
    """Compress the images for real, and compare size, error and speed with other formats."""
    frechet: int | None = None
    """Draw that many samples (1000, say) and measure the Frechet distance of their pixels."""
    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on; what the model was trained on by default."""
    split: Split = "test"
    """test (held out) or train."""
    images: int | None = None
    """How many images, the first of the set; all by default."""
    sampler: str | None = None
    """For --frechet: ancestral (the default), ddim, dpm-solver or langevin."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    seed: int | None = None
    """Decides the noise; 0 by default."""
    batch_size: int | None = None
    """Images in one network call; 256 by default."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16; what it was trained in by default."""
    out: Path | None = None
    """Folder for the figures; RUN/evaluation by default."""


def run(argv: Sequence[str]) -> int:
    """Parse, measure, write, print the table."""
    name, rest = positional(argv, "a run or checkpoint", "evaluate")
    args = parse(Evaluate, rest, f"evaluate {name or 'RUN'}")
    check_arguments(args)
    path = user_path(name)
    beside = path if path.is_dir() else path.parent
    out = user_path(args.out) if args.out else beside / "evaluation"
    model = load(name, precision=args.precision)
    model.chain(args.plan)  # a wrong choice is refused before anything is read
    source = open_for(model, args.data, args.split)
    images = FirstImages(source, len(source) if args.images is None else args.images)
    training = None
    if args.frechet is not None:
        training = FirstImages(open_for(model, args.data, "train"), args.frechet)
        pixels = math.prod(model.format.shape)
        check_frechet(min(args.frechet, len(training)), len(images), pixels)
        check_frechet(args.frechet, len(images), pixels)
        model.plan_samples(args.sampler or "ancestral", args.plan)
    if args.bpd:
        evaluate_bpd(model, images, args, out)
    if args.codec:
        evaluate_codec(model, images, args, out)
    if training is not None:
        evaluate_frechet(model, images, training, args, out)
    return 0


def check_arguments(args: Evaluate) -> None:
    """Refuse options that make no sense together, or have no effect."""
    check(
        args.bpd or args.codec or args.frechet is not None,
        "say what to measure: --bpd, --codec or --frechet N",
    )
    check(
        args.frechet is None or args.frechet >= 2,
        f"--frechet needs at least 2 samples, got {args.frechet}",
    )
    check(
        args.frechet is None or args.split == "test",
        "--frechet compares samples with held-out images; leave --split train out",
    )
    check(
        args.sampler is None or args.frechet is not None,
        "--sampler has no effect without --frechet; leave it out",
    )
    get_sampler(args.sampler or "ancestral")
    if args.codec and not args.bpd and args.frechet is None:
        for option, value in (
            ("--seed", args.seed),
            ("--batch-size", args.batch_size),
            ("--trajectory", args.plan.trajectory),
            ("--variance", args.plan.variance),
        ):
            check(value is None, f"{option} has no effect on --codec; leave it out")
    check(
        not args.codec or parallel.size() == 1,
        "--codec measures one process; start it without torchrun or accelerate",
    )
    size, seed = args.batch_size, args.seed
    check(size is None or size >= 1, f"--batch-size must be at least 1, got {size}")
    check(args.images is None or args.images >= 1, f"--images must be positive, got {args.images}")
    check(seed is None or seed >= 0, f"--seed must be at least 0, got {seed}")


def known(args: Evaluate, model: Ddpm) -> tuple[str, str | None, int]:
    """Split, path of the images and seed."""
    return args.split, args.data or model.config.data.path, args.seed or 0


def evaluate_bpd(model: Ddpm, images: ImageSource, args: Evaluate, out: Path) -> None:
    """The bound: measured, written, printed."""
    measured = model.denoising_error is not None
    plan = args.plan.resolved(model.diffusion, measured)
    with progress_bar() as progress:
        bound = model.bound(
            images,
            plan=plan,
            seed=args.seed or 0,
            batch_size=args.batch_size or BATCH,
            progress=progress,
        )
    found = settings(model, images, plan, *known(args, model))
    path = result_path("bpd", found, out)
    parallel.on_main(lambda: write_bound(bound, model, found, path))
    Console().print(block_table(bound))
    error = f" ± {bound.standard_error:.4f} (one standard error)" if len(images) > 1 else ""
    count = f"{len(images):,} image{'s' * (len(images) > 1)}"
    said = f"{bound.mean:.4f}{error} bits/dim on {count} of {images.name}, {plan}"
    if plan.variance == "analytic" and model.denoising_error is not None:
        predicted = predicted_bpd(model.diffusion.schedule, model.denoising_error, bound.timesteps)
        said += (
            f"; the error measured on {model.denoising_error.images:,} images predicted "
            f"{predicted + bound.prior.mean():.4f}"
        )
    say(said, f"written to {path}.json, .csv (rate-distortion), .png")


def evaluate_codec(model: Ddpm, images: ImageSource, args: Evaluate, out: Path) -> None:
    """Real files: made, compared, written, printed."""
    with progress_bar() as progress:
        pixels = as_tensor(images)
        comparison = compare_codec(model, pixels, steps=args.plan.steps, progress=progress)
    found = {
        **settings(model, images, Plan(), *known(args, model)),
        "steps": args.plan.steps or "best",
        "trajectory": "optimal",
        "variance": "analytic",
    }
    path = result_path("codec", found, out)
    write_text(path.with_name(f"{path.name}.json"), to_json(comparison.document()) + "\n")
    for name, picture in comparison_pictures(comparison).items():
        save_png(picture, path.with_name(f"{path.name}-{name}.png"))
    for head, rows in (
        (["lossless", "bits/dim"], comparison.size_rows()),
        (comparison.prefix_head(), comparison.prefix_rows()),
    ):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    say(
        comparison.overheads(),
        comparison.speed(),
        f"written to {path}.json, -codec.png, -prefixes.png",
    )


def evaluate_frechet(
    model: Ddpm, images: ImageSource, training: ImageSource, args: Evaluate, out: Path
) -> None:
    """The distance of samples to the images, beside that of as many training images."""
    n, held_out, training_set = args.frechet or 0, as_tensor(images), as_tensor(training)
    size = args.batch_size or BATCH
    batches = max(len(parallel.local_range(n)[::size]), 1)
    sampler = args.sampler or "ancestral"
    _, plan = model.plan_samples(sampler, args.plan)
    with progress_bar() as bar:
        counted = Calls(bar)
        samples = model.sample(
            n,
            seed=args.seed or 0,
            sampler=sampler,
            plan=args.plan,
            batch_size=size,
            progress=counted,
        )
    calls = counted.done // batches
    found = {**settings(model, images, plan, *known(args, model)), "sampler": sampler, "samples": n}
    document = {
        **found,
        "calls": calls,
        "frechet": pixel_frechet_distance(samples, held_out, model.format),
        "frechet_of_training_images": pixel_frechet_distance(training_set, held_out, model.format),
        "training_images": len(training),
    }
    path = result_path(f"frechet-{n}-{sampler}", found, out)
    parallel.on_main(
        lambda: write_text(path.with_name(f"{path.name}.json"), to_json(document) + "\n")
    )
    say(
        f"Frechet distance of pixels in [-1, 1] to {len(images):,} images: "
        f"{document['frechet']:.3f} for {n:,} samples with {calls:,} calls ({sampler}, {plan}), "
        f"{document['frechet_of_training_images']:.3f} for {len(training):,} training images",
        f"written to {path}.json",
    )


class Calls:
    """A `Progress` that passes on what it is told, and remembers how much was done."""

    def __init__(self, then: Progress) -> None:
        self.then, self.done = then, 0

    def __call__(self, done: int, total: int, label: str) -> None:
        """See `Progress`."""
        self.done = done
        self.then(done, total, label)


def block_table(bound: Bound) -> Table:
    """The terms of the bound summed over stretches of time, with the errors there."""
    table = Table("time", "bits/dim", "x_0 RMSE (0..255)", "epsilon MSE")
    for part in reversed(np.array_split(np.arange(len(bound.timesteps)), BLOCKS)):
        if part.size == 0:
            continue
        times = bound.timesteps[part]
        table.add_row(
            f"{times[-1]}..{times[0]}",
            f"{bound.terms[part].sum():.4f}",
            f"{unit_to_byte_rmse(bound.xstart_mse[part].mean(keepdims=True))[0]:.2f}",
            f"{bound.eps_mse[part].mean():.4f}",
        )
    table.add_row("prior L_T", f"{bound.prior.mean():.6f}", "", "")
    table.add_row("of which L_0", f"{bound.terms[0]:.4f}", "", "")
    table.add_row("total", f"{bound.mean:.4f}", "", "")
    return table
