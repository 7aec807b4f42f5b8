"""The part of `ddpm evaluate` that compares samples with real images: FID and its kin."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ddpm.cli.drawing import Drawing
from ddpm.cli.parse import say
from ddpm.cli.progress import progress_bar
from ddpm.cli.quality_results import slug, stamp_of, write_figures
from ddpm.cli.references import CIFAR10, OWN, Reference, bounded, cifar10_images, find_reference
from ddpm.cli.sample_set import SampleSet, begun_with, stored_settings
from ddpm.errors import check
from ddpm.evaluation.features import Features, FeaturesName, check_features, get_features
from ddpm.evaluation.frechet import LIMIT
from ddpm.evaluation.image_sets import ImageSet, SomeOf, SourceSet, open_set, picture_files
from ddpm.evaluation.measured import BATCH, Disk, Measured, disk, measure
from ddpm.evaluation.quality import ENOUGH, check_counts, compare, scores
from ddpm.evaluation.statistics import DENSE
from ddpm.evaluation.statistics_file import write_statistics
from ddpm.model import Ddpm
from ddpm.pretrained import pretrained
from ddpm.provenance import read_provenance
from ddpm.runs.folder import RunFolder
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.device import Floats
from ddpm.runtime.paths import exists, user_path
from ddpm.runtime.progress import Progress
from ddpm.sampling import network_calls

SAMPLES = {"pixels": 10_000, "cifar10": 10_000, "inception": 50_000}

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class Quality:
    """How far samples are from real images."""

    features: FeaturesName | None = None
    """Compare samples with real images by their pixels, by the cifar10 classifier that comes with
    the package (RGB images of 32x32), or by inception (FID, KID, Inception score)."""
    fid: bool = False
    """Short for --features inception."""
    samples: int | None = None
    """How many; of a run 50000 for inception and 10000 else, of a set of images all."""
    reference: str | None = None
    """train or test (the run's own images), cifar10-train, cifar10-test, a folder of images, an
    .npz of images, or a statistics file (mu, sigma); of a run train by default, and cifar10-train
    for cifar10."""
    sampler: str | None = None
    """ancestral (the default), ddim, dpm-solver, unipc, unipc3, heun or langevin."""
    eta: float | None = None
    """Noise of ddim: 0 is deterministic (the default), 1 is ancestral-like."""
    write_statistics: Path | None = None
    """An .npz for the statistics (mu, sigma) of the samples or the set."""
    inception: Path | None = None
    """The file inception-2015-12-05.pt; DDPM_INCEPTION or torch's cache by default."""

    @property
    def kind(self) -> FeaturesName | None:
        """Which features, if any."""
        return "inception" if self.fid else self.features

    def check(self) -> None:
        """Refuse options that make no sense together.

        Raises:
            DdpmError: says which.
        """
        given = {
            "--samples": self.samples,
            "--reference": self.reference,
            "--sampler": self.sampler,
            "--eta": self.eta,
            "--write-statistics": self.write_statistics,
            "--inception": self.inception,
        }
        for option, value in given.items():
            check(
                value is None or self.kind is not None,
                f"{option} has no effect without --features; leave it out",
            )
        check(
            not self.fid or self.features in (None, "inception"),
            f"--fid is short for --features inception, and --features {self.features} is given too",
        )
        check(
            self.samples is None or self.samples >= 2,
            f"--samples must be at least 2, got {self.samples}",
        )
        check(
            self.inception is None or self.kind == "inception",
            "--inception has no effect without --features inception; leave it out",
        )
        check(
            self.kind is None or parallel.size() == 1,
            "--features measures in one process; draw the samples with several (`torchrun ... ddpm "
            "sample RUN -n N --out FOLDER`), and then measure FOLDER with one",
        )
        path = None if self.write_statistics is None else user_path(self.write_statistics)
        check(
            path is None or path.suffix == ".npz",
            f"--write-statistics must end in .npz, got {path}",
        )
        check(
            path is None or not exists(path),
            f"{path} is there already and is not overwritten; choose another --write-statistics",
        )


@dataclass(frozen=True)
class Job:
    """What is to be measured, checked.

    Args:
        args: how.
        out: folder for the results.
        batch_size: images in one network call.
        seed: of the samples and of every choice.
        data: where a run's images are, if not where they were.
    """

    args: Quality
    out: Path
    batch_size: int = BATCH
    seed: int = 0
    data: str | None = None


def is_set(name: str) -> bool:
    """Whether the first argument is a set of images and no model."""
    if name in CIFAR10:
        return True
    path = user_path(name)
    if name in pretrained() or path.suffix == ".safetensors" or not exists(path):
        return False
    run = RunFolder(path)
    return path.is_file() or not (run.checkpoints() or run.config.exists() or run.stats.exists())


def evaluate_run(model: Ddpm, drawing: Drawing, job: Job) -> None:
    """Draw what is missing of a set of samples beside the results, and measure it."""
    kind = job.args.kind
    assert kind is not None
    shape = model.format.shape
    check_features(kind, shape)
    large = kind == "pixels" and math.prod(shape) > DENSE  # without a covariance: see frechet
    count = job.args.samples or (min(SAMPLES[kind], LIMIT) if large else SAMPLES[kind])
    features = get_features(kind, shape, device=model.device, inception=job.args.inception)
    default = "cifar10-train" if kind == "cifar10" else "train"
    named = job.args.reference or default
    steps = model.chain(drawing.plan).num_timesteps
    check_wanted_statistics(features.size, job)
    check_writable(job.out)
    warn_of_few(count)
    samples = set_of(drawing, steps, job.out)
    drawing, folder = samples.drawing, samples.folder
    with progress_bar() as progress, disk() as room:
        reference = find_reference(named, kind, model, job.data, progress)
        check(
            job.data is None or named in OWN or reference.images is not None,
            "--data has no effect on statistics that are there; leave it out",
        )
        reference = bounded(reference, features.size, job.seed)
        check_counts(kind, features.size, count, reference.images)
        real = measure_reference(reference, features, room, shape, job, progress)
        drawn = samples.fill(range(count), progress=progress)
        images = picture_files([samples.path(i) for i in range(count)], folder.name, shape)
        found = measure_samples(images, features, room, job, progress)
        figures = compare(found, real, seed=job.seed, progress=progress)
    settings = {
        **drawing.settings,
        "calls": network_calls(drawing.draw, steps),
        "step": model.history.step,
        "samples_in": folder.name,
    }
    known = f", {count - drawn:,} of which were there" if drawn < count else ""
    say(f"{count:,} samples ({drawing}, {drawing.precision}) in {folder}{known}")
    name = f"{drawing.sampler}-{steps}-steps-seed-{job.seed}"
    write_figures(figures, found, real, reference, settings, name, job.out, job.seed)
    write_wanted_statistics(found, job)


def set_of(drawing: Drawing, steps: int, out: Path) -> SampleSet:
    """The samples beside the results: as they were begun, if they were, in precision and batch."""

    def folder(drawing: Drawing) -> Path:
        known = {key: value for key, value in drawing.settings.items() if key != "batch_size"}
        words = f"samples-{drawing.sampler}-{steps}-steps-seed-{drawing.seed}-{stamp_of(known)}"
        return out / words

    if drawing.model.precision == "auto":
        models = [replace(drawing.model, precision=known) for known in get_args(Floats)]
        either = [replace(drawing, model=model) for model in models]
        begun = [one for one in either if stored_settings(folder(one))]
        drawing = begun[0] if len(begun) == 1 else drawing
    size = begun_with(stored_settings(folder(drawing)), drawing.batch_size)
    return SampleSet(folder(drawing), replace(drawing, batch_size=size))


def evaluate_set(name: str, job: Job) -> None:
    """Measure images that are there."""
    kind = job.args.kind
    assert kind is not None
    check(
        job.args.reference is not None or job.args.write_statistics is not None,
        f"{name} is a set of images; say what to compare it with (--reference), or that its "
        "statistics are to be written (--write-statistics)",
    )
    check_writable(job.out)
    with progress_bar() as progress, disk() as room:
        images = open_subject(name, progress)
        check_features(kind, images.shape)
        if job.args.samples is not None and job.args.samples != len(images):
            images = SomeOf(images, job.args.samples, job.seed)
        features = get_features(kind, images.shape, inception=job.args.inception)
        check_wanted_statistics(features.size, job)
        named, real, reference = job.args.reference, None, None
        warn_of_few(len(images))
        if named is not None:
            reference = find_reference(named, kind, None, job.data, progress)
            reference = bounded(reference, features.size, job.seed)
            check_counts(kind, features.size, len(images), reference.images)
            real = measure_reference(reference, features, room, images.shape, job, progress)
        found = measure_samples(images, features, room, job, progress)
        figures = (
            scores(found)
            if real is None
            else compare(found, real, seed=job.seed, progress=progress)
        )
    words = slug(images.name)
    write_figures(figures, found, real, reference, made_by(name), words, job.out, job.seed)
    write_wanted_statistics(found, job, CIFAR10.get(name, ""))


def open_subject(name: str, progress: Progress) -> ImageSet:
    """A set by name or path."""
    if name in CIFAR10:
        return SourceSet(cifar10_images(CIFAR10[name]))
    return open_set(user_path(name), progress)


def made_by(name: str) -> dict[str, Any]:
    """How a set of samples was made, where it says so."""
    path = user_path(name)
    settings: dict[str, Any] = {"set": name, "seed": None}
    if path.is_dir():
        return {**settings, **stored_settings(path)}
    found = read_provenance(path) if path.suffix.lower() == ".npz" else None
    return settings if found is None else {**settings, "model": found.model, **found.settings}


def measure_samples(
    images: ImageSet, features: Features, room: Disk, job: Job, progress: Progress
) -> Measured:
    """What is compared with the real images."""
    return measure(
        images, features, room, batch_size=job.batch_size, seed=job.seed, progress=progress
    )


def measure_reference(
    reference: Reference,
    features: Features,
    room: Disk,
    shape: tuple[int, int, int],
    job: Job,
    progress: Progress,
) -> Measured:
    """The real images, which must be of the samples' shape."""
    if reference.images is not None:
        check(
            reference.images.shape == shape,
            f"the reference {reference.name} has images of shape {reference.images.shape} "
            f"(channels, height, width), and {shape} are measured; nothing is resized",
        )
    return reference.measured(features, room, job.batch_size, progress)


def check_wanted_statistics(size: int, job: Job) -> None:
    """Refuse, before the work, statistics that could not be written."""
    wanted = job.args.write_statistics
    if wanted is not None:
        check(size <= DENSE, f"a covariance of {size:,} features is too large for a file")
        check_writable(user_path(wanted).parent)


def warn_of_few(count: int) -> None:
    """A distance of few samples is one of the estimator too."""
    if count < ENOUGH:
        log.warning(
            "%s samples are fewer than %s: the Frechet distance is too large by an amount that "
            "depends on their number; compare it only with figures of as many",
            *(f"{count:,}", f"{ENOUGH:,}"),
        )


def write_wanted_statistics(found: Measured, job: Job, split: str = "") -> None:
    """The file that the user asked for."""
    if job.args.write_statistics is not None:
        path = user_path(job.args.write_statistics)
        write_statistics(path, found, split=split)
        say(f"statistics of {found.count:,} images of {found.name} in {path}")
