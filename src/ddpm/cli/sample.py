"""`ddpm sample RUN`: draw images from a trained model."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from ddpm.cli.drawing import Drawing
from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, say, typed
from ddpm.cli.progress import progress_bar
from ddpm.cli.sample_set import SampleSet, begun_with, stored_settings
from ddpm.data.exact_files import numbered, save_png
from ddpm.data.images import ImageFormat
from ddpm.data.listing import KINDS, UNREAD
from ddpm.errors import DdpmError, check
from ddpm.figures.grid import image_grid
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import DRAWN, Ddpm
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Floats, Precision
from ddpm.runtime.paths import exists, user_path
from ddpm.runtime.probe import agreed
from ddpm.runtime.progress import Progress
from ddpm.sampling import get_sampler

STRIP = 8  # images of a progressive strip

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained model."""

    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """How many images."""
    sampler: str = "ancestral"
    """ancestral (the paper's Algorithm 2), ddim, dpm-solver, unipc, unipc3, heun or langevin."""
    plan: Annotated[Plan, tyro.conf.arg(name="")] = field(default_factory=Plan)
    eta: float | None = None
    """Noise of ddim: 0 is deterministic (the default), 1 is ancestral-like."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    seed: int = 0
    """Which images; the i-th of a seed is the same whatever -n and --batch-size."""
    first: int = 0
    """The number of the first image."""
    batch_size: int | None = None
    """Images at a time: 64 by default or fewer large ones, or as many as a set was begun with."""
    precision: Precision | None = None
    """Of the network: fp32 or bf16, or auto: the faster one; a set is gone on with in the one that
    it was begun in."""
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
    kind = out.suffix.lower()
    check(
        out.is_dir() or kind in (".png", ".npz") or kind not in {*KINDS.split(), *UNREAD.split()},
        f"--out must end in .png or .npz or be a folder, got {out}",
    )
    strip = out.with_name(f"{out.stem}-progressive.png")
    for path in [out] * (kind == ".png") + [strip] * args.progressive:
        check(
            not exists(path),
            f"{path} is there already and is not overwritten; choose another --out",
        )
    folder = out.with_name(f"{out.name}.parts") if kind == ".npz" else out
    model = args.given.to(load(name, precision=args.precision))
    model = replace(model, precision=set_precision(model, args.precision, folder))
    size = batch_size(args, stored_settings(folder), model.format)
    drawing = Drawing(model, name, args.sampler, args.eta, args.plan, args.seed, size)
    steps = model.chain(drawing.plan).num_timesteps
    recorder = ProgressiveRecorder(min(args.n, STRIP), model.format, steps)
    callback = recorder if args.progressive else None
    with progress_bar() as progress:
        if kind == ".png":
            parallel.on_main(lambda: check_writable(out.parent))
            drawn = draw_grid(out, drawing, args, callback, progress)
        else:
            drawn = fill(out, folder, drawing, args, callback, progress)
    known = f", {args.n - drawn} of which were there" if drawn < args.n else ""
    said = [f"{args.n} images in {out}{known}: {drawing}"]
    if args.progressive:
        frames = recorder.frames()
        origin = drawing.provenance(args.first, args.n)
        origin = replace(origin, command=(*origin.command, "--progressive"))
        text = origin.chunks() if args.provenance else None
        parallel.on_main(lambda: save_png(progressive_strip(frames, model.format), strip, text))
        said.append(f"their progressive generation in {strip}")
    tell(images=args.n, drawn=drawn, settings=drawing.settings)
    picture = out / numbered(args.first) if folder == out and kind != ".png" else out
    finish(
        *said,
        made=[out, *[strip] * args.progressive],
        then={f"ddpm info {typed(picture)}": "what it comes from"} if args.provenance else None,
    )
    return 0


def check_arguments(args: Sample) -> None:
    """Refuse numbers out of range, before a model is read."""
    check(args.n >= 1, f"-n must be at least 1, got {args.n}")
    check(args.seed >= 0, f"--seed must be at least 0, got {args.seed}")
    check(args.first >= 0, f"--first must be at least 0, got {args.first}")
    size = args.batch_size
    check(size is None or size >= 1, f"--batch-size must be at least 1, got {size}")
    get_sampler(args.sampler, args.eta)


def set_precision(model: Ddpm, asked: Precision | None, folder: Path) -> Floats:
    """In which a set is drawn: as is asked, or as it was begun, or as the model draws."""
    if asked is not None and asked != "auto":
        return asked

    def begun() -> Floats | None:
        found = stored_settings(folder).get("precision")
        return next((known for known in get_args(Floats) if known == found), None)

    kept = agreed(begun)
    if kept is None:
        own = model.drawing_precision()
        kept = agreed(begun) or own  # another process may have begun the set meanwhile
    elif model.precision == "auto":
        log.info("the set was begun in %s, and is gone on with so", kept)
    return kept


def batch_size(args: Sample, begun: dict[str, Any], image_format: ImageFormat) -> int:
    """Images at a time; where a set keeps another number than is asked for, that is told."""
    size = begun_with(begun, args.batch_size or min(image_format.batch(DRAWN), args.n))
    if args.batch_size not in (None, size):
        log.info("the set was begun with %d images at a time, and is gone on with so", size)
    return size


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
        batch_size=drawing.batch_size,
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
    samples = SampleSet(folder, drawing, args.provenance, arrays=packed)
    if packed and exists(out):
        same = args.provenance and samples.is_packed(numbers, out)
        check(same, f"{out} is there already and is not overwritten; choose another --out")
        check(
            callback is None,
            f"{out} is finished, and no strip can be drawn of it; leave --progressive out",
        )
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed behind its end
        return 0
    try:
        drawn = samples.fill(numbers, callback, progress, lambda: packed and exists(out))
    except KeyboardInterrupt:
        say(f"the images that are finished are in {folder}; the same command goes on with it")
        raise
    except (DdpmError, OSError):  # because another process has packed and removed them, perhaps
        if not (packed and samples.is_packed(numbers, out)):
            raise
        drawn = 0
    if packed:
        parallel.on_main(lambda: samples.pack(numbers, out))
    return drawn
