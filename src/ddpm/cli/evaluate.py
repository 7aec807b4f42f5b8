"""`ddpm evaluate RUN`: measure a trained model on images it has not seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from ddpm.cli.data import as_tensor, open_for
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.data.exact_files import save_png
from ddpm.data.images import FirstImages, ImageSource, unit_to_byte_rmse
from ddpm.data.open import Split
from ddpm.errors import check
from ddpm.evaluation import pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.figures.bound_plots import rate_distortion_plot
from ddpm.figures.codec_plots import comparison_pictures
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import predicted_bpd
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically, write_text
from ddpm.runtime.device import Precision
from ddpm.runtime.progress import Progress
from ddpm.sampling import get_sampler

BLOCKS = 10  # stretches of time in the table


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
    sampler: str = "ancestral"
    """For --frechet: ancestral, ddim, dpm-solver or langevin."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    seed: int = 0
    """Decides the noise."""
    batch_size: int = 256
    """Images in one network call."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16; what it was trained in by default."""
    out: Path | None = None
    """Folder for the figures; RUN/evaluation by default."""


def run(argv: Sequence[str]) -> int:
    """Parse, measure, write, print the table."""
    name, rest = positional(argv, "a run or checkpoint", "evaluate")
    args = parse(Evaluate, rest, f"evaluate {name or 'RUN'}")
    check_arguments(args)
    model = load(name, precision=args.precision)
    model.chain(args.plan)  # a wrong choice is refused before anything is read
    source = open_for(model, args.data, args.split)
    images = FirstImages(source, len(source) if args.images is None else args.images)
    out = args.out or (Path(name) if Path(name).is_dir() else Path(name).parent) / "evaluation"
    if args.bpd:
        evaluate_bpd(model, images, args, out)
    if args.codec:
        evaluate_codec(model, images, args.plan.steps, out)
    if args.frechet is not None:
        training = FirstImages(open_for(model, args.data, "train"), args.frechet)
        evaluate_frechet(model, images, training, args, out)
    return 0


def check_arguments(args: Evaluate) -> None:
    """Refuse options that make no sense together."""
    check(
        args.bpd or args.codec or args.frechet is not None,
        "say what to measure: --bpd, --codec or --frechet N",
    )
    check(
        args.frechet is None or args.frechet >= 2,
        f"--frechet needs at least 2 samples, got {args.frechet}",
    )
    get_sampler(args.sampler)
    check(
        not args.codec or parallel.size() == 1,
        "--codec measures one process; start it without torchrun or accelerate",
    )
    check(args.batch_size >= 1, f"--batch-size must be at least 1, got {args.batch_size}")
    check(args.images is None or args.images >= 1, f"--images must be positive, got {args.images}")
    check(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")


def evaluate_bpd(model: Ddpm, images: ImageSource, args: Evaluate, out: Path) -> None:
    """The bound: measured, written, printed."""
    with progress_bar() as progress:
        bound = model.bound(
            images,
            plan=args.plan,
            seed=args.seed,
            batch_size=args.batch_size,
            progress=progress,
        )
    parallel.on_main(lambda: write_bound(bound, model, args, images.name, out))
    Console().print(block_table(bound))
    steps = len(bound.timesteps)
    said = (
        f"{bound.mean:.4f} ± {bound.standard_error:.4f} bits/dim on {len(images):,} images of "
        f"{images.name} with {steps:,} steps"
    )
    if args.plan.variance == "analytic" and model.denoising_error is not None:
        predicted = predicted_bpd(model.diffusion.schedule, model.denoising_error, bound.timesteps)
        said += (
            f"; the error measured on {model.denoising_error.images:,} images predicted "
            f"{predicted + bound.prior.mean():.4f}"
        )
    say(
        said,
        f"written to {out}/: bpd.json, rate_distortion.csv, rate_distortion.png",
    )


def evaluate_codec(model: Ddpm, images: ImageSource, steps: int | None, out: Path) -> None:
    """Real files: made, compared, written, printed."""
    with progress_bar() as progress:
        comparison = compare_codec(model, as_tensor(images), steps=steps, progress=progress)
    write_text(out / "codec.json", json.dumps(comparison.document()) + "\n")
    for name, picture in comparison_pictures(comparison).items():
        save_png(picture, out / f"{name}.png")
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
        f"written to {out}/: codec.json, codec.png, prefixes.png",
    )


def evaluate_frechet(
    model: Ddpm, images: ImageSource, training: ImageSource, args: Evaluate, out: Path
) -> None:
    """The distance of samples to the images, beside that of as many training images."""
    n, held_out, known = args.frechet or 0, as_tensor(images), as_tensor(training)
    batches = max(len(parallel.local_range(n)[:: args.batch_size]), 1)
    with progress_bar() as bar:
        counted = Calls(bar)
        samples = model.sample(
            n,
            seed=args.seed,
            sampler=args.sampler,
            plan=args.plan,
            batch_size=args.batch_size,
            progress=counted,
        )
    calls = counted.done // batches
    document = {
        "samples": n,
        "images": len(images),
        "calls": calls,
        "sampler": args.sampler,
        "frechet": pixel_frechet_distance(samples, held_out, model.format),
        "frechet_of_training_images": pixel_frechet_distance(known, held_out, model.format),
    }
    parallel.on_main(lambda: write_text(out / "frechet.json", json.dumps(document) + "\n"))
    say(
        f"Frechet distance of pixels in [-1, 1] to {len(images):,} images: "
        f"{document['frechet']:.3f} for {n:,} samples with {calls:,} calls, "
        f"{document['frechet_of_training_images']:.3f} for {len(training):,} training images",
        f"written to {out}/: frechet.json",
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
            f"{bound.terms[:, part].mean(axis=0).sum():.4f}",
            f"{unit_to_byte_rmse(bound.xstart_mse[:, part].mean(keepdims=True))[0, 0]:.2f}",
            f"{bound.eps_mse[:, part].mean():.4f}",
        )
    table.add_row("prior L_T", f"{bound.prior.mean():.6f}", "", "")
    table.add_row("of which L_0", f"{bound.terms[:, 0].mean():.4f}", "", "")
    table.add_row("total", f"{bound.mean:.4f}", "", "")
    return table


def write_bound(bound: Bound, model: Ddpm, args: Evaluate, data: str, out: Path) -> None:
    """bpd.json, rate_distortion.csv and rate_distortion.png."""
    options = {key: str(value) for key, value in asdict(args).items() if value is not None}
    document = {
        "bits_per_dim": bound.mean,
        "standard_error": bound.standard_error,
        "images": len(bound.total),
        "data": data,
        "options": options,
        "model": asdict(model.history),
        "prior": float(bound.prior.mean()),
        "timesteps": bound.timesteps.tolist(),
        "terms": bound.terms.mean(axis=0).tolist(),
        "xstart_mse": bound.xstart_mse.mean(axis=0).tolist(),
        "eps_mse": bound.eps_mse.mean(axis=0).tolist(),
        "per_image": bound.total.tolist(),
    }
    write_text(out / "bpd.json", json.dumps(document) + "\n")
    curve = bound.rate_distortion()

    def write_curve(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(curve)
            rows.writerows(zip(*(column.tolist() for column in curve.values()), strict=True))

    atomically(out / "rate_distortion.csv", write_curve)
    save_png(rate_distortion_plot(bound), out / "rate_distortion.png")
