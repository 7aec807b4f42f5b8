"""`ddpm sample RUN`: draw images from a trained model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.drawing import Drawing
from ddpm.cli.given import Given
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.cli.sample_set import SampleSet, stored_settings
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.figures.grid import image_grid
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.provenance import read_provenance
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Precision
from ddpm.runtime.paths import exists, user_path
from ddpm.runtime.progress import Progress
from ddpm.sampling import get_sampler

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
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    seed: int = 0
    """Which images; the i-th of a seed is the same whatever -n and --batch-size."""
    first: int = 0
    """The number of the first image."""
    batch_size: int = 64
    """Images at a time."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16; what it was trained in by default, and what a set was begun
    in."""
    out: Path | None = None
    """A .png (one grid), or a folder of PNGs or an .npz (`arr_0`, uint8 [n, h, w, c]), which fill
    as they are drawn, are gone on with by the same command, and shared by any number of processes;
    samples.png by default."""
    progressive: bool = False
    """Also draw the predicted x_0 of the first eight images over time, beside --out."""
    provenance: bool = True
    """Write into every file what made it, and that it is synthetic."""


def run(argv: Sequence[str]) -> int:
    """Parse, sample, write, say what was made."""
    name, rest = positional(argv, "a run or checkpoint", "sample")
    args = parse(Sample, rest, f"sample {name or 'RUN'}")
    check_arguments(args)
    out = free_name(Path("samples.png")) if args.out is None else user_path(args.out)
    check(
        out.suffix in (".png", ".npz", ""),
        f"--out must end in .png or .npz or be a folder, got {out}",
    )
    strip = out.with_name(f"{out.stem}-progressive.png")
    for path in [out] * (out.suffix == ".png") + [strip] * args.progressive:
        check(
            not exists(path),
            f"{path} is there already and is not overwritten; choose another --out",
        )
    folder = out.with_name(f"{out.name}.parts") if out.suffix == ".npz" else out
    model = args.given.to(load(name, precision=args.precision or begun_in(folder)))
    drawing = Drawing(model, name, args.sampler, args.eta, args.plan, args.seed)
    steps = model.chain(drawing.plan).num_timesteps
    recorder = ProgressiveRecorder(min(args.n, STRIP), model.format, steps)
    callback = recorder if args.progressive else None
    with progress_bar() as progress:
        if out.suffix == ".png":
            parallel.on_main(lambda: check_writable(out.parent))
            drawn = draw_grid(out, drawing, args, callback, progress)
        else:
            drawn = fill(out, folder, drawing, args, callback, progress)
    known = f", {args.n - drawn} of which were there" if drawn < args.n else ""
    say(f"{args.n} images in {out}{known}: {drawing}")
    if args.progressive:
        frames = recorder.frames()
        text = drawing.provenance(args.first, len(frames)).chunks() if args.provenance else None
        parallel.on_main(lambda: save_png(progressive_strip(frames, model.format), strip, text))
        say(f"their progressive generation in {strip}")
    return 0


def check_arguments(args: Sample) -> None:
    """Refuse numbers out of range, before a model is read."""
    check(args.n >= 1, f"-n must be at least 1, got {args.n}")
    check(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")
    check(args.first >= 0, f"--first must be at least 0, got {args.first}")
    check(args.batch_size >= 1, f"--batch-size must be at least 1, got {args.batch_size}")
    get_sampler(args.sampler, args.eta)


def begun_in(folder: Path) -> Precision | None:
    """The precision that a set of samples was begun in, if there is one."""
    found = stored_settings(folder).get("precision")
    return next((known for known in ("fp32", "bf16") if known == found), None)


def free_name(path: Path) -> Path:
    """A name that nothing has yet: samples.png, samples-1.png, ..."""
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in itertools.count(1))
    return next(name for name in itertools.chain([path], names) if not exists(name))


def draw_grid(
    out: Path,
    drawing: Drawing,
    args: Sample,
    callback: ProgressiveRecorder | None,
    progress: Progress,
) -> int:
    """Draw all images and put them into one picture."""
    images = drawing.model.sample(
        args.n,
        seed=args.seed,
        first=args.first,
        sampler=drawing.draw,
        plan=drawing.plan,
        batch_size=args.batch_size,
        callback=callback,
        progress=progress,
    )
    text = drawing.provenance(args.first, args.n).chunks() if args.provenance else None
    grid = image_grid(images, drawing.model.format)
    parallel.on_main(lambda: save_png(grid, out, text))
    return args.n


def fill(
    out: Path,
    folder: Path,
    drawing: Drawing,
    args: Sample,
    callback: ProgressiveRecorder | None,
    progress: Progress,
) -> int:
    """Draw what a set lacks; how many images that were."""
    numbers = range(args.first, args.first + args.n)
    packed = folder != out
    if packed and exists(out):
        wanted = drawing.provenance(args.first, args.n) if args.provenance else None
        same = wanted is not None and read_provenance(out) == wanted
        check(same, f"{out} is there already and is not overwritten; choose another --out")
        return 0
    samples = SampleSet(folder, drawing, args.provenance, arrays=packed)
    try:
        drawn = samples.fill(numbers, args.batch_size, callback, progress)
    except KeyboardInterrupt:
        say(f"the images that are finished are in {folder}; the same command goes on with it")
        raise
    if packed:
        parallel.on_main(lambda: samples.pack(numbers, out))
    return drawn
