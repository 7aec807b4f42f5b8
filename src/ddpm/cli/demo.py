"""`ddpm demo`: train, sample and show the embedded digits, and write it all into one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddpm.cli.parse import parse, say
from ddpm.cli.progress import progress_bar
from ddpm.data import MemoryImages
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.evaluation.simple_codes import context_bpd, histogram_bpd, uniform_bpd
from ddpm.figures.bound_plots import rate_distortion_plot, steps_plot
from ddpm.figures.codec_plots import comparison_pictures
from ddpm.figures.curves import loss_curve
from ddpm.figures.grid import image_grid
from ddpm.figures.html_page import HtmlPage
from ddpm.figures.neighbours import neighbours_figure
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import read_stats
from ddpm.runtime.paths import user_path
from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import get_preset

CALLS = (10, 25, 50)  # numbers of network calls at which the report measures bits/dim
FRACTIONS = (0.02, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the archive that the report decodes
SINGLE = 8  # digits that are also compressed one by one
STRIP = 8  # digits whose progressive generation is shown
BATCH = 128  # digits drawn at a time


@dataclass(frozen=True)
class Demo:
    """Train the digits preset on the embedded data, draw from it, and write report.html."""

    out: Path = Path("runs/demo")
    """The run's folder; an existing run is resumed, or its report is rebuilt."""
    samples: int = 256
    """How many digits to draw and measure."""
    steps: int | None = None
    """Training steps; the preset's by default."""


def run(argv: Sequence[str]) -> int:
    """Everything in order; each picture is a file of its own and a part of the report."""
    args = parse(Demo, argv, "demo")
    check(args.samples >= 16, f"--samples must be at least 16, got {args.samples}")
    begun = time.monotonic()
    out, config = RunFolder(user_path(args.out)), get_preset("digits")
    if args.steps is not None:
        config = replace(config, training=replace(config.training, steps=args.steps))
    training, held_out = digits("train"), digits("test")
    resume = bool(out.checkpoints())
    with progress_bar() as progress:
        result = train(
            config, training, out.path, resume=resume, held_out=held_out, progress=progress
        )
    if result.stopped:
        say(f"stopped at step {result.step:,}, saved; resume with: ddpm demo --out {out.path}")
        return 130

    model = load(out.path)
    page = HtmlPage("A diffusion model draws digits")
    introduction(page, model, result, len(training), args.samples)
    samples_section(page, model, training, held_out, args.samples, out.path)
    likelihood_section(page, model, training, held_out, out.path)
    codec_section(page, model, held_out, out.path)
    page.section("Training")
    picture = loss_curve(read_stats(out))
    save_png(picture, out.path / "loss.png")
    page.picture(picture, "L_simple (Eq. 14) against the training step.")
    report = out.path / "report.html"
    page.write(report)
    say(f"done in {(time.monotonic() - begun) / 60:.1f} minutes; open {report}")
    return 0


def introduction(
    page: HtmlPage, model: Ddpm, result: TrainingResult, training: int, samples: int
) -> None:
    """What was trained, and how."""
    page.text(
        f"A U-Net of {model.num_parameters:,} parameters learned from {training:,} handwritten "
        f"digits of 8x8 pixels for {result.step:,} steps ({result.seconds:.0f} s on "
        f"{torch.get_num_threads()} threads of this machine), then drew {samples:,} new ones with "
        f"all {model.diffusion.num_timesteps:,} reverse steps."
    )


def samples_section(
    page: HtmlPage,
    model: Ddpm,
    training: MemoryImages,
    held_out: MemoryImages,
    count: int,
    out: Path,
) -> None:
    """Digits drawn by Algorithm 2: how good, how they come to be, and whether they are new."""
    recorder = ProgressiveRecorder(min(count, STRIP), model.format, model.diffusion.num_timesteps)
    with progress_bar() as progress:
        samples = model.sample(
            count, batch_size=min(count, BATCH), callback=recorder, progress=progress
        )
    pictures = {
        "samples": image_grid(samples[:100], model.format, columns=20),
        "progressive": progressive_strip(recorder.frames(), model.format),
        "neighbours": neighbours_figure(samples[:20], training.images, model.format),
    }
    save_all(pictures, out)
    page.section("Samples")
    page.picture(pictures["samples"], "Digits drawn by the model (the paper's Algorithm 2).")
    page.table(["", "drawn digits", "for comparison"], quality(samples, training, held_out))
    page.section("Progressive generation")
    page.picture(
        pictures["progressive"],
        "The x_0 the model predicts while it walks from noise (left) to the digit (right).",
    )
    page.section("New, or remembered?")
    page.picture(
        pictures["neighbours"], "Top: drawn digits. Below each: its three nearest training digits."
    )


def quality(samples: Tensor, training: MemoryImages, held_out: MemoryImages) -> list[list[str]]:
    """Rows of a table: drawn digits, and real ones to compare them with."""
    recogniser = DigitRecogniser(training)
    drawn, usual = (
        pixel_frechet_distance(images, held_out.images, held_out.format)
        for images in (samples, training.images)
    )
    seen, expected = (recogniser.fraction(images) for images in (samples, held_out.images))
    gap, usual_gap = (
        float(nearest_neighbours(images, training.images)[1].median())
        for images in (samples, held_out.images)
    )
    copies = int((nearest_neighbours(samples, training.images)[1] == 0).sum())
    say(
        f"Frechet distance {drawn:.3f} (training digits {usual:.3f}); "
        f"recognised {seen:.3f} (held-out digits {expected:.3f})"
    )
    return [
        [
            "Frechet distance to held-out digits, pixels in [-1, 1]",
            f"{drawn:.3f}",
            f"{usual:.3f} (training digits)",
        ],
        [
            "recognised by a classifier with probability over 0.9",
            f"{seen:.3f}",
            f"{expected:.3f} (held-out digits)",
        ],
        [
            "median distance to the nearest training digit, grey levels",
            f"{gap:.1f}",
            f"{usual_gap:.1f} (held-out digits)",
        ],
        ["exact copies of a training digit", str(copies), ""],
    ]


def likelihood_section(
    page: HtmlPage, model: Ddpm, training: MemoryImages, held_out: MemoryImages, out: Path
) -> None:
    """bits/dim of the held-out digits by number of network calls, beside simple codes."""
    images, levels = held_out.images, model.format.levels
    calls = [k for k in CALLS if k <= model.diffusion.num_timesteps]
    bounds: dict[str, dict[int, Bound]] = {}
    with progress_bar() as progress:
        for trajectory in ("even", "optimal"):
            bounds[trajectory] = {
                k: model.bound(images, plan=Plan(k, trajectory, "analytic"), progress=progress)
                for k in calls
            }
    baselines = {
        "uniform": uniform_bpd(levels),
        "histogram of each pixel": histogram_bpd(training.images, images, levels),
        "the same, given the left and upper pixel": context_bpd(training.images, images, levels),
    }
    best = bounds["optimal"][calls[-1]]
    pictures = {
        "bits-per-dim": steps_plot(
            {name: {k: b.mean for k, b in points.items()} for name, points in bounds.items()},
            dict(list(baselines.items())[1:]),
        ),
        "rate-distortion": rate_distortion_plot(best),
    }
    save_all(pictures, out)
    page.section("Likelihood")
    page.text(
        f"What the {len(images)} held-out digits cost in bits per pixel. For the model it is the "
        "variational bound (Eq. 5) of a chain of a few steps with the analytic variance; optimal "
        "timesteps are chosen by dynamic programming over the network's measured error."
    )
    rows = [[name, f"{value:.3f}"] for name, value in baselines.items()]
    for name, points in bounds.items():
        for k, bound in points.items():
            cost = f"{bound.mean:.3f} ± {bound.standard_error:.3f} (standard error)"
            rows.append([f"this model, {k} {name} steps", cost])
    page.table(["code", "bits/dim"], rows)
    page.picture(pictures["bits-per-dim"], "bits/dim against the number of network calls.")
    page.picture(
        pictures["rate-distortion"],
        f"Rate and distortion of progressive coding (Figure 5) over {calls[-1]} optimal steps.",
    )
    say(
        f"held-out digits: {best.mean:.3f} ± {best.standard_error:.3f} (standard error) bits/dim "
        f"with {calls[-1]} "
        f"optimal steps (histogram of each pixel {baselines['histogram of each pixel']:.3f})"
    )


def codec_section(page: HtmlPage, model: Ddpm, held_out: MemoryImages, out: Path) -> None:
    """The held-out digits as one real file: its size, and what its prefixes decode to."""
    with progress_bar() as progress:
        comparison = compare_codec(
            model, held_out.images, fractions=FRACTIONS, single=SINGLE, progress=progress
        )
    pictures = comparison_pictures(comparison)
    save_all(pictures, out)
    figures = comparison.figures
    page.section("Compression")
    page.text(
        f"All {len(held_out)} held-out digits as one file of {figures.archive:,} bytes, written "
        "and read back bit for bit (Algorithms 3 and 4). Every prefix of the file decodes to "
        "all of them, better with every byte. On this machine: "
        f"{comparison.speed()}. Cost: {comparison.overheads()}."
    )
    page.table(["lossless", "bits/dim"], comparison.size_rows())
    page.picture(pictures["prefixes"], "Growing prefixes of the file, and the originals.")
    page.picture(pictures["codec"], "Real bytes against error, beside what theory calculates.")
    page.table(comparison.prefix_head(), comparison.prefix_rows())
    say(
        f"held-out digits as one file: {figures.archive:,} bytes, "
        f"{comparison.bpd(figures.archive):.3f} bits/dim, exact "
        f"(WebP {comparison.bpd(comparison.lossless['WebP']):.3f})"
    )


def save_all(pictures: dict[str, Image.Image], out: Path) -> None:
    """Each picture as a file of its own."""
    for name, picture in pictures.items():
        save_png(picture, out / f"{name}.png")
