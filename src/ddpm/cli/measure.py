"""`ddpm measure RUN`: measure a model's denoising error and store it in the model's file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ddpm.cli.data import adopt, came_from_elsewhere, open_for
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, say, typed
from ddpm.cli.progress import about, progress_bar
from ddpm.codec.learning import usual_steps
from ddpm.data import ImageSource
from ddpm.data.open import NoHeldOut
from ddpm.errors import DdpmError, check
from ddpm.evaluation.held_out import STEPS, judged, measure_held_out
from ddpm.likelihood.denoising_error import (
    IMAGES,
    MEASURED,
    DenoisingError,
    measured_timesteps,
)
from ddpm.likelihood.held_out import HeldOut
from ddpm.loading import load_with_file, store_measured
from ddpm.model import Ddpm
from ddpm.pretrained import pretrained
from ddpm.runs.folder import in_runs
from ddpm.runs.pins import pinned_by
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.paths import exists, user_path

WARM = 1.0  # seconds: on a CPU a call that took as long was not slow because it was the first


@dataclass(frozen=True)
class Measure:
    """Measure the denoising error of a trained model, which a complete run has measured already,
    in pixels and in colour and frequency, and its calibration: how the predicted x_0 is put right.

    An optimal trajectory, the analytic and spectral variances and compression need the error; the
    samplers that add no noise draw better with the calibration. A model that came from elsewhere
    also learns here, from --data, what images it was trained on. Bits/dim of some held-out images,
    if the data have any, are kept too, beside which `ddpm ui` shows those of an image.
    """

    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on; what the model was trained on by default."""
    images: int = IMAGES
    """How many of them."""
    timesteps: int | None = None
    """At how many of the T timesteps, the first and the last among them; between them the error is
    interpolated. All early ones and every 12th of the rest by default."""
    batch_size: int | None = None
    """Images in one network call; 256 by default, or fewer large ones."""
    last_stage_steps: int | None = None
    """Steps that the last stage is trained for; some minutes of them by default, chosen by the
    images' size, and 0 leaves it as it is. More make smaller files."""
    out: Path | None = None
    """A file for the measured model; by default its own file is changed."""


def run(argv: Sequence[str]) -> int:
    """Parse, measure, store, say where."""
    name, rest = positional(argv, "a run or checkpoint", "measure")
    args = parse(Measure, rest, f"measure {name or 'RUN'}", Measure())
    check_given(args)
    model, measured = load_with_file(name)
    total = model.diffusion.num_timesteps
    check(
        args.timesteps is None or 2 <= args.timesteps <= total,
        f"--timesteps must lie in 2..{total}, all that this model has, got {args.timesteps}",
    )
    missing = lacking(model, args)
    file = where(name, measured, args.out, model.coding is not None and not missing)
    parallel.on_main(lambda: check_writable(file.parent))  # before the time is spent
    check(
        args.data is not None or not came_from_elsewhere(model),
        "this model came from elsewhere and does not say what images it was trained on; set "
        "--data to them (`ddpm measure RUN --data FOLDER`), and from then on it does",
    )
    source = open_for(model, args.data, "train")
    adopted = args.data is not None and came_from_elsewhere(model)
    if args.data is not None and adopted:
        adopt(model, args.data, source)
    judges = held_out_images(model, args.data)
    before = model.denoising_error if missing else None
    if missing:
        say(
            f"the denoising error was measured before there was {' and '.join(missing)}; what is "
            "missing is added, and the error stays as it is, for archives that need it"
        )
    say(forecast(model, source, args, judges))
    with progress_bar() as progress:
        error = model.measure(
            source,
            count=args.images,
            timesteps=args.timesteps,
            batch_size=args.batch_size,
            progress=progress,
        )
        if before is not None:
            error = model.denoising_error = completed(before, error)
        kept = before is not None and model.coding is not None
        if args.last_stage_steps != 0 and not model.diffusion.learns_variance and not kept:
            model.learn_coding(source, steps=args.last_stage_steps, progress=progress)
        if judges is not None:
            model.held_out = measure_held_out(model, judges, progress)
    file, planned = parallel.on_main(lambda: store(model, file, args.out)) or file, file
    if file != planned:
        say(f"{planned} may be needed by an archive by now and is not changed; this is in {file}")
    if adopted and file == planned:
        say(
            f"the {len(source):,} images of {source.name} in {args.data} are from now on what this "
            "model is said to be trained on, and other commands find them without --data"
        )
    held = held_out_words(model.held_out, judges is not None)
    own = file == planned and not args.out
    conclude(model, error, source.name, held, file, typed(Path(name) if own else file))
    return 0


def store(model: Ddpm, file: Path, out: Path | None) -> Path:
    """Write the measured model; the file that holds it."""
    if out is None:
        return store_measured(model, file)
    model.save(file)
    return file


def check_given(args: Measure) -> None:
    """Refuse numbers that no model could take."""
    least = {"images": 1, "batch-size": 1, "last-stage-steps": 0}
    given = (args.images, args.batch_size, args.last_stage_steps)
    for (name, low), value in zip(least.items(), given, strict=True):
        check(value is None or value >= low, f"--{name} must be at least {low}, got {value}")


def held_out_images(model: Ddpm, path: str | None) -> ImageSource | None:
    """Those that the model is judged by; None if the data have none."""
    try:
        return open_for(model, path, "test")
    except NoHeldOut:
        return None


def held_out_words(held: HeldOut | None, now: bool) -> list[str]:
    """What held-out images take, or took when they were measured before."""
    none = "the data have no held-out images"
    if held is None:
        return [f"{none}, beside which others could be judged"]
    mean = sum(held.bits_per_dim) / len(held.bits_per_dim)
    said = f"{len(held.bits_per_dim):,} held-out images of {held.name}: {mean:.3f} bits/dim"
    return [said if now else f"{none}; what was measured before stays: {said}"]


def conclude(
    model: Ddpm, error: DenoisingError, images: str, held_out: list[str], file: Path, name: str
) -> None:
    """What was measured, where it is, and what it is good for."""
    tell(
        timesteps=len(error.timesteps),
        images=error.images,
        bits_per_dim_of_last_stage=last_stage_costs(model),
        bits_per_dim_of_held_out=list(model.held_out.bits_per_dim) if model.held_out else [],
        held_out_images=model.held_out.name if model.held_out else None,
    )
    then = {f"ddpm sample {name} --steps 10": "few steps, the best timesteps"}
    if model.coding is not None:
        then = {f"ddpm compress {name} FOLDER -o FILE.ddpm": "images into one file"} | then
    finish(
        f"denoising error at {len(error.timesteps)} timesteps, measured on {error.images:,} images "
        f"of {images}: in {file}",
        calibration_words(error),
        *last_stage_words(model),
        *held_out,
        made=[file],
        then=then,
    )


def where(name: str, measured: Path, out: Path | None, coded: bool) -> Path:
    """The file for the measured model, `coded` if it can compress and will be another one.

    Raises:
        DdpmError: it may not be changed, or is there already.
    """
    if out is not None:
        file = user_path(out)
        check(
            not exists(file),
            f"{file} is there already and is not overwritten; choose another --out",
        )
        return file
    check(
        not measured.is_dir(),
        f"{name} was converted in memory and is not changed; make a run of it (`ddpm import {name} "
        "--out RUN`) and measure that, or give --out FILE",
    )
    check(
        measured not in pretrained().values(),
        f"{name} comes with the package and is not changed; give --out FILE",
    )
    run = pinned_by(measured)
    if run is not None:
        raise DdpmError(
            f"{measured} is kept for archives and is not changed; give --out FILE, or if there is "
            f"no archive that needs it, take it out of {run.pins}"
        )
    check(
        not coded or bool(in_runs(measured)),
        f"{measured} can compress already, and archives that need it as it is could not be read "
        "any more; give --out FILE",
    )
    return measured


def lacking(model: Ddpm, args: Measure) -> list[str]:
    """What an earlier version has not measured with the error, if nothing else is asked for now."""
    error, usual = model.denoising_error, Measure()
    asked = (args.data, args.images, args.timesteps)
    if error is None or asked != (usual.data, usual.images, usual.timesteps):
        return []
    parts = {
        "a calibration of the predicted x_0": error.calibration,
        "an error in colour and frequency": error.spectral,
    }
    return [name for name, part in parts.items() if part is None]


def completed(before: DenoisingError, now: DenoisingError) -> DenoisingError:
    """What was measured before, with the parts that it lacked.

    A calibration of before stays, too, so that what is drawn with it stays as it is.
    """
    return replace(
        before,
        calibration=before.calibration or now.calibration,
        spectral=before.spectral or now.spectral,
    )


def calibration_words(error: DenoisingError) -> str:
    """What the calibration mends of the error where it mends most."""
    assert error.calibration is not None
    own, left = (
        table.xstart_mse.reshape(len(table.timesteps), -1).mean(axis=1)
        for table in (error, error.calibrated)
    )
    most = int((left / own).argmin())
    return (
        f"calibration of the predicted x_0: at t = {error.timesteps[most] + 1} its mean squared "
        f"error falls from {own[most]:.3g} to {left[most]:.3g}"
    )


def last_stage_words(model: Ddpm) -> list[str]:
    """What the exact pixels of a compressed image take."""
    found = last_stage_costs(model)
    if not found:
        return []
    costs, t = min((costs, t) for t, costs in found.items())
    return [f"last stage of compressed files: {costs:.3f} bits/dim, where the path ends at {t}"]


def last_stage_costs(model: Ddpm) -> dict[int, float]:
    """bits/dim of the exact pixels by where the path ends; empty if there is no last stage."""
    return {} if model.coding is None else dict(model.coding.ends)


def forecast(model: Ddpm, source: ImageSource, args: Measure, judges: ImageSource | None) -> str:
    """A sentence about how long it will take, from a network call or two on the first images."""
    images = min(args.images, len(source))
    steps = len(measured_timesteps(model.diffusion.num_timesteps, args.timesteps))
    size = min(args.batch_size or model.format.batch(MEASURED), images)
    x = model.format.to_unit(source[torch.arange(size)].to(model.device))
    t, denoiser = torch.zeros(size, dtype=torch.long, device=model.device), model.denoiser()
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        denoiser(x, t).cpu()  # which waits for a GPU
        seconds = time.perf_counter() - begun
        if seconds > WARM and model.device.type == "cpu":
            break
    mine = -(-steps // parallel.size())
    training = usual_steps(model.format) if args.last_stage_steps is None else args.last_stage_steps
    training *= not model.diffusion.learns_variance
    then = [f"{training:,} steps of training of the last stage"] if training else []
    if judges is not None:
        count = judged(model, judges)
        calls = count * min(STEPS, model.diffusion.num_timesteps)
        then.append(f"{calls:,} evaluations of {count:,} held-out image{'s' * (count > 1)}")
    return (
        f"measuring {steps:,} timesteps of {images:,} image{'s' * (images > 1)}: "
        f"{steps * images:,} evaluations, {about(mine * images / size * seconds)}; fewer with "
        f"--images or --timesteps{'; then ' * bool(then)}{' and '.join(then)}"
    )
