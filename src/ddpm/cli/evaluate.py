"""`ddpm evaluate RUN`: measure a trained model on images it has not seen, and its samples."""

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
from ddpm.cli.drawing import Drawing
from ddpm.cli.earlier import is_ours
from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, typed
from ddpm.cli.progress import progress_bar
from ddpm.cli.quality import Job, Quality, evaluate_run, evaluate_set, is_set
from ddpm.cli.results import marks, result_path, settings, write_bound
from ddpm.data.exact_files import save_png
from ddpm.data.images import FirstImages, ImageSource, unit_to_byte_rmse
from ddpm.data.open import Split
from ddpm.errors import DdpmError, check
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.evaluation.measured import BATCH
from ddpm.figures.codec_plots import comparison_pictures
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import predicted_bpd
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable, to_json, write_text
from ddpm.runtime.device import Precision
from ddpm.runtime.paths import user_path
from ddpm.sampling import get_sampler

BLOCKS = 10  # stretches of time in the table
LARGE_PRIOR = 1e-3  # bits/dim of L_T, a hundred times the paper's


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model: bits/dim (Eq. 5), rate-distortion (Figure 5), the real codec, and
    how far its samples, or a folder or an .npz of images, are from real ones (FID and others)."""

    bpd: bool = False
    """Measure the variational bound in bits/dim, term by term."""
    codec: bool = False
    """Compress the images for real, and compare size, error and speed with other formats."""
    quality: Annotated[Quality, tyro.conf.arg(name="")] = field(default_factory=Quality)
    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on; what the model was trained on by default."""
    split: Split = "test"
    """test (held out) or train."""
    images: int | None = None
    """How many images, the first of the set; all by default."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    seed: int | None = None
    """Decides the noise; 0 by default."""
    batch_size: int | None = None
    """Images in one call: 256 by default, of large images fewer for the model, but not for
    --features."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16, or auto: on a CPU the faster one for pictures, and fp32 for
    bits."""
    out: Path | None = None
    """Folder for the figures; RUN/evaluation by default."""


def run(argv: Sequence[str]) -> int:
    """Parse, measure, write, print the table."""
    name, rest = positional(argv, "a run, a checkpoint or a set of images", "evaluate")
    check_old_options(rest)
    args = parse(Evaluate, rest, f"evaluate {name or 'RUN'}")
    check_arguments(args)
    path = user_path(name)
    run_folder = is_ours(path) and not (args.quality.kind and is_set(name))
    beside = path if run_folder else path.parent
    out = user_path(args.out) if args.out else beside / "evaluation"
    job = Job(args.quality, out, args.batch_size or BATCH, args.seed or 0, args.data)
    if args.quality.kind and is_set(name):
        check_for_set(name, args)
        evaluate_set(name, job)
        return 0
    model = args.given.to(load(name, precision=args.precision))
    model.chain(args.plan)  # a wrong choice is refused before anything is read
    quality = args.quality
    drawing = None
    if quality.kind:
        sampler = quality.sampler or "ancestral"
        size = args.batch_size or model.format.batch(BATCH)
        size = min(size, quality.samples or size)
        drawing = Drawing(model, name, sampler, quality.eta, args.plan, args.seed or 0, size)
    if args.bpd or args.codec:
        origin = Provenance.of(model, name, ("evaluate", *argv))
        source = open_for(model, args.data, args.split)
        images = FirstImages(source, len(source) if args.images is None else args.images)
        if args.bpd:
            evaluate_bpd(model, origin, images, args, out)
        if args.codec:
            evaluate_codec(model, origin, images, args, out)
    if drawing is not None:
        evaluate_run(model, drawing, job)
    return 0


def check_old_options(argv: Sequence[str]) -> None:
    """Say what `--frechet` is called now."""
    for i, option in enumerate(argv):
        if option.split("=")[0] == "--frechet":
            given = option.partition("=")[2] or "".join(argv[i + 1 : i + 2])
            count = given if given.isdecimal() else "N"
            raise DdpmError(
                f"--frechet {count} is now --features pixels --samples {count} (and --features "
                "cifar10 or inception see more than pixels); its reference is --reference test"
            )


def check_arguments(args: Evaluate) -> None:
    """Refuse options that make no sense together, or have no effect."""
    quality = args.quality
    check(
        args.bpd or args.codec or quality.kind is not None,
        "say what to measure: --bpd, --codec, or --features pixels, cifar10 or inception",
    )
    quality.check()
    get_sampler(quality.sampler or "ancestral", quality.eta)
    if not (args.bpd or args.codec):
        check(
            args.split == "test" and args.images is None,
            "--split and --images have no effect on --features; say --reference train or test",
        )
    if args.codec and not args.bpd and quality.kind is None:
        for option, value in (
            ("--seed", args.seed),
            ("--batch-size", args.batch_size),
            ("--trajectory", args.plan.trajectory),
            ("--variance", args.plan.variance),
            ("--calibrated", args.plan.calibrated),
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


def check_for_set(name: str, args: Evaluate) -> None:
    """Refuse what only a model can do, or only has an effect on one."""
    check(
        not (args.bpd or args.codec),
        f"{name} is a set of images, and --bpd and --codec need a trained model",
    )
    plan, quality = args.plan, args.quality
    for option, value in (
        ("--sampler", quality.sampler),
        ("--eta", quality.eta),
        ("--steps", plan.steps),
        ("--trajectory", plan.trajectory),
        ("--variance", plan.variance),
        ("--calibrated", plan.calibrated),
        ("--precision", args.precision),
        ("--data", args.data),
        ("--class", args.given.label),
    ):
        check(value is None, f"{option} has no effect on a set of images; leave it out")


def known(args: Evaluate, model: Ddpm) -> tuple[str, str | None, int]:
    """Split, path of the images and seed."""
    return args.split, args.data or model.config.data.path, args.seed or 0


def evaluate_bpd(
    model: Ddpm, source: Provenance, images: ImageSource, args: Evaluate, out: Path
) -> None:
    """The bound: measured, written, printed."""
    measured = model.denoising_error is not None
    plan = args.plan.resolved(model.diffusion, measured)
    with progress_bar() as progress:
        bound = model.bound(
            images,
            plan=plan,
            seed=args.seed or 0,
            batch_size=args.batch_size,
            progress=progress,
        )
    found = settings(model, images, plan, *known(args, model))
    path = result_path("bpd", found, out)
    parallel.on_main(lambda: write_bound(bound, model, source, found, path))
    Console().print(block_table(bound))
    error = f" ± {bound.standard_error:.4f} (one standard error)" if len(images) > 1 else ""
    count = f"{len(images):,} image{'s' * (len(images) > 1)}"
    said = f"{bound.mean:.4f}{error} bits/dim on {count} of {images.name}, {plan}"
    if plan.variance in ("analytic", "spectral") and model.denoising_error is not None:
        table = model.denoising_error.calibrated if plan.calibrated else model.denoising_error
        spectral = plan.variance == "spectral"
        predicted = predicted_bpd(model.diffusion.schedule, table, bound.timesteps, spectral)
        said += (
            f"; the error measured on {model.denoising_error.images:,} images predicted "
            f"{predicted + bound.prior.mean():.4f}"
        )
    left = prior_words(float(bound.prior.mean()), math.prod(model.format.shape))
    tell(
        bpd={
            "bits_per_dim": bound.mean,
            "standard_error": bound.standard_error if len(images) > 1 else None,
            "prior": float(bound.prior.mean()),
            "l_0": float(bound.terms[0]),
            "settings": found,
        }
    )
    run = typed(Path(source.name))
    finish(
        said,
        left,
        f"written to {path}.json, .csv (rate-distortion), .png",
        made=[path.with_name(f"{path.name}.{kind}") for kind in ("json", "csv", "png")],
        then={f"ddpm report {run}": "every figure and measure on one page"},
    )


def evaluate_codec(
    model: Ddpm, source: Provenance, images: ImageSource, args: Evaluate, out: Path
) -> None:
    """Real files: made, compared, written, printed."""
    check_writable(out)  # before the time is spent
    with progress_bar() as progress:
        pixels = as_tensor(images)
        comparison = compare_codec(model, pixels, steps=args.plan.steps, progress=progress)
    found = {
        **settings(model, images, Plan(), *known(args, model)),
        "steps": args.plan.steps or "best",
        "trajectory": "optimal",
        "variance": "spectral" if model.coding and model.coding.spectral else "analytic",
    }
    path = result_path("codec", found, out)
    document = {**comparison.document(), "settings": found}
    write_text(path.with_name(f"{path.name}.json"), to_json(document) + "\n")
    text = marks(source, found)
    for what, picture in comparison_pictures(comparison).items():
        save_png(picture, path.with_name(f"{path.name}-{what}.png"), text)
    for head, rows in (
        (["lossless", "bits/dim"], comparison.size_rows()),
        (comparison.prefix_head(), comparison.prefix_rows()),
    ):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    tell(codec=document)
    finish(
        comparison.overheads(),
        comparison.speed(),
        f"written to {path}.json, -codec.png, -prefixes.png",
        made=[path.with_name(path.name + end) for end in (".json", "-codec.png", "-prefixes.png")],
        then={f"ddpm compress {typed(Path(source.name))} FOLDER -o FILE.ddpm": "a file of yours"},
    )


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
    table.add_row("prior L_T", f"{bound.prior.mean():.2g}", "", "")
    table.add_row("of which L_0", f"{bound.terms[0]:.4f}", "", "")
    table.add_row("total", f"{bound.mean:.4f}", "", "")
    return table


def prior_words(prior: float, dims: int) -> str:
    """What L_T says: of all images together it is their mutual information with x_T, and how far
    x_T is from N(0, I), so that it bounds both.

    Args:
        prior: L_T in bits/dim.
        dims: numbers in an image.
    """
    said = f"x_T tells at most {prior * dims:.2g} bits of a whole image (L_T)"
    if prior <= LARGE_PRIOR:
        return said
    return (
        f"{said}: the schedule ends before the image is noise, so that samples, which begin with "
        "noise, begin where no image leads; more timesteps or a larger beta_end mend it"
    )
