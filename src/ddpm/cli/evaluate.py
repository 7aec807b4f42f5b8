"""`ddpm evaluate RUN`: measure a trained model on images it has not seen."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import naming_bar, progress_bar
from ddpm.config import Precision
from ddpm.data import open_data
from ddpm.data.exact_files import save_png
from ddpm.data.open import Split
from ddpm.errors import check
from ddpm.evaluation import pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.figures.bound_plots import rate_distortion_plot
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.trajectory import predicted_bpd
from ddpm.model import Ddpm, load
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically
from ddpm.sampling import get_sampler


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
    steps: int | None = None
    """Timesteps of the chain; all T by default, and chosen by the amount of data for the codec."""
    trajectory: str = "even"
    """Which timesteps: even, quadratic or optimal."""
    variance: str | None = None
    """fixed_small, fixed_large or analytic; the model's own by default."""
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
    model = load(name, precision=args.precision)
    config = replace(model.config.data, path=args.data or model.config.data.path)
    source = open_data(config, args.split)
    check(
        source.grey_levels == model.facts.grey_levels,
        f"{source.name} has {source.grey_levels} grey levels, but the model was trained with "
        f"{model.facts.grey_levels}",
    )
    images = source[torch.arange(min(args.images or len(source), len(source)))]
    out = args.out or (Path(name) if Path(name).is_dir() else Path(name).parent) / "evaluation"
    if args.codec or args.variance == "analytic" or args.trajectory == "optimal":
        with progress_bar("evaluations") as bar:
            errors = bar.add_task("measuring errors", total=None, note="")
            model.errors(lambda count: bar.advance(errors, count))
    if args.bpd:
        evaluate_bpd(model, images, args, source.name, out)
    if args.codec:
        evaluate_codec(model, images, args.steps, out)
    if args.frechet is not None:
        training = open_data(config, "train")
        reference = training[torch.arange(min(args.frechet, len(training)))]
        evaluate_frechet(model, images, reference, args, out)
    return 0


def evaluate_bpd(model: Ddpm, images: Tensor, args: Evaluate, data: str, out: Path) -> None:
    """The bound: measured, written, printed."""
    with progress_bar("evaluations") as bar:
        # The chain is built here too, so that a wrong choice is told before the bar appears.
        chain = model.chain(args.steps, args.trajectory, args.variance)
        steps = chain.num_timesteps
        task = bar.add_task("bits/dim", total=len(images) * steps, note="")
        bound = model.bound(
            images,
            steps=args.steps,
            trajectory=args.trajectory,
            variance=args.variance,
            seed=args.seed,
            batch_size=args.batch_size,
            callback=lambda count: bar.advance(task, count),
        )
    parallel.on_main(lambda: write(bound, model, args, data, out))
    Console().print(block_table(bound))
    said = (
        f"{bound.mean:.4f} ± {bound.standard_error:.4f} bits/dim on {len(images):,} images of "
        f"{data} with {steps:,} steps"
    )
    if args.variance == "analytic":
        tables = predicted_bpd(model.diffusion.schedule, model.errors(), chain.schedule.timesteps)
        said += f"; the errors on training images predicted {tables + bound.prior.mean():.4f}"
    say(
        said,
        f"written to {out}/: bpd.json, rate_distortion.csv, rate_distortion.png",
    )


def evaluate_codec(model: Ddpm, images: Tensor, steps: int | None, out: Path) -> None:
    """Real files: made, compared, written, printed."""
    with progress_bar("parts") as bar:
        progress = naming_bar(bar, "codec")
        comparison = compare_codec(model, images, steps=steps, callback=progress)
    document = json.dumps(comparison.document()) + "\n"
    atomically(out / "codec.json", lambda partial: partial.write_text(document))
    for name, picture in comparison.pictures().items():
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
    model: Ddpm, images: Tensor, training: Tensor, args: Evaluate, out: Path
) -> None:
    """The distance of samples to the images, beside that of as many training images."""
    n, levels = args.frechet or 0, model.facts.grey_levels
    calls = model.chain(args.steps, args.trajectory, args.variance).num_timesteps
    with progress_bar("network calls") as bar:
        total = len(parallel.share(n)[:: args.batch_size]) * calls
        task = bar.add_task("sampling", total=total, note="")
        samples = model.sample(
            n,
            seed=args.seed,
            sampler=args.sampler,
            steps=args.steps,
            trajectory=args.trajectory,
            variance=args.variance,
            batch_size=args.batch_size,
            callback=lambda state: bar.advance(task),
        )
    document = {
        "samples": n,
        "images": len(images),
        "calls": calls,
        "sampler": args.sampler,
        "frechet": pixel_frechet_distance(samples, images, levels),
        "frechet_of_training_images": pixel_frechet_distance(training, images, levels),
    }
    text = json.dumps(document) + "\n"
    parallel.on_main(
        lambda: atomically(out / "frechet.json", lambda partial: partial.write_text(text))
    )
    say(
        f"Frechet distance of pixels in [-1, 1] to {len(images):,} images: "
        f"{document['frechet']:.3f} for {n:,} samples with {calls:,} calls, "
        f"{document['frechet_of_training_images']:.3f} for {len(training):,} training images",
        f"written to {out}/: frechet.json",
    )


def block_table(bound: Bound, blocks: int = 10) -> Table:
    """The terms of the bound summed over stretches of time, with the errors there."""
    table = Table("time", "bits/dim", "x_0 RMSE (0..255)", "epsilon MSE")
    for part in reversed(np.array_split(np.arange(len(bound.timesteps)), blocks)):
        if part.size == 0:
            continue
        times = bound.timesteps[part]
        table.add_row(
            f"{times[-1]}..{times[0]}",
            f"{bound.terms[:, part].mean(axis=0).sum():.4f}",
            f"{127.5 * np.sqrt(bound.xstart_mse[:, part].mean()):.2f}",
            f"{bound.eps_mse[:, part].mean():.4f}",
        )
    table.add_row("prior L_T", f"{bound.prior.mean():.6f}", "", "")
    table.add_row("of it L_0", f"{bound.terms[:, 0].mean():.4f}", "", "")
    table.add_row("total", f"{bound.mean:.4f}", "", "")
    return table


def write(bound: Bound, model: Ddpm, args: Evaluate, data: str, out: Path) -> None:
    """bpd.json, rate_distortion.csv and rate_distortion.png."""
    options = {key: str(value) for key, value in asdict(args).items() if value is not None}
    document = {
        "bits_per_dim": bound.mean,
        "standard_error": bound.standard_error,
        "images": len(bound.total),
        "data": data,
        "options": options,
        "model": model.history,
        "prior": float(bound.prior.mean()),
        "timesteps": bound.timesteps.tolist(),
        "terms": bound.terms.mean(axis=0).tolist(),
        "xstart_mse": bound.xstart_mse.mean(axis=0).tolist(),
        "eps_mse": bound.eps_mse.mean(axis=0).tolist(),
        "per_image": bound.total.tolist(),
    }
    atomically(out / "bpd.json", lambda partial: partial.write_text(json.dumps(document) + "\n"))
    curve = bound.rate_distortion()

    def write_curve(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(curve)
            rows.writerows(zip(*(column.tolist() for column in curve.values()), strict=True))

    atomically(out / "rate_distortion.csv", write_curve)
    save_png(rate_distortion_plot(bound), out / "rate_distortion.png")
