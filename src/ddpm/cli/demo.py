"""`ddpm demo`: train, sample and show the embedded digits, and write it all into one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddpm.cli.parse import parse, say
from ddpm.cli.progress import naming_bar, progress_bar
from ddpm.data import MemoryImages
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.evaluation.simple_codes import context_bpd, histogram_bpd, uniform_bpd
from ddpm.figures.bound_plots import rate_distortion_plot, steps_plot
from ddpm.figures.curves import loss_curve
from ddpm.figures.grid import image_grid
from ddpm.figures.html_page import Report
from ddpm.figures.neighbours import neighbours_figure
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.likelihood.bound import Bound
from ddpm.model import Ddpm, load
from ddpm.runs.folder import checkpoints
from ddpm.runs.log import read_stats
from ddpm.sampling import SampleState
from ddpm.training.loop import train
from ddpm.training.presets import get_preset

CALLS = (10, 25, 50)  # numbers of network calls at which the report measures bits/dim
FRACTIONS = (0.02, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the archive that the report decodes
SINGLE = 8  # digits that are also compressed one by one


@dataclass(frozen=True)
class Demo:
    """Train the digits preset on the embedded data, draw from it, and write report.html."""

    out: Path = Path("runs/demo")
    """The run's folder; a run that is already there is gone on with, or shown again."""
    samples: int = 256
    """How many digits to draw and measure."""
    steps: int | None = None
    """Training steps; the preset's by default."""


def run(argv: Sequence[str]) -> int:
    """Everything in order; each picture is a file of its own and a part of the report."""
    args = parse(Demo, argv, "demo")
    check(args.samples >= 16, f"--samples must be at least 16, got {args.samples}")
    begun = time.monotonic()
    out, config = args.out.expanduser(), get_preset("digits")
    if args.steps is not None:
        config = replace(config, training=replace(config.training, steps=args.steps))
    training, held_out = digits("train"), digits("test")
    result = train(config, training, out, resume=bool(checkpoints(out)), held_out=held_out)
    if result.stopped:
        say(f"stopped at step {result.step:,}, saved; go on with: ddpm demo --out {out}")
        return 130

    model = load(out)
    levels = model.facts.grey_levels
    recorder = ProgressiveRecorder(args.samples, levels)
    size = min(args.samples, 128)
    with progress_bar("network calls") as bar:
        calls = -(-args.samples // size) * model.diffusion.num_timesteps
        task = bar.add_task("sampling", total=calls, note="")

        def callback(state: SampleState) -> None:
            bar.advance(task)
            recorder(state)

        samples = model.sample(args.samples, batch_size=size, callback=callback)

    pictures = {
        "samples": image_grid(samples[:100], levels, columns=20),
        "progressive": progressive_strip(recorder.frames(), levels),
        "loss": loss_curve(read_stats(out)),
        "neighbours": neighbours_figure(samples[:20], training.images, levels),
    }
    for name, picture in pictures.items():
        save_png(picture, out / f"{name}.png")

    recogniser = DigitRecogniser(training)
    frechet = {
        "samples": pixel_frechet_distance(samples, held_out.images, levels),
        "training digits": pixel_frechet_distance(training.images, held_out.images, levels),
    }
    share = {"samples": recogniser.share(samples), "held-out": recogniser.share(held_out.images)}
    gap, usual = (
        float(nearest_neighbours(images, training.images)[1].median())
        for images in (samples, held_out.images)
    )
    copies = int((nearest_neighbours(samples, training.images)[1] == 0).sum())

    report = Report("A diffusion model draws digits")
    report.text(
        f"A U-Net of {model.network.num_parameters():,} parameters learned from "
        f"{len(training):,} handwritten digits of 8x8 pixels for {result.step:,} steps "
        f"({result.seconds:.0f} s on {torch.get_num_threads()} threads of this machine), then drew "
        f"{args.samples:,} new ones with all {model.diffusion.num_timesteps:,} reverse steps."
    )
    report.section("Samples")
    report.picture(pictures["samples"], "Digits drawn by the model (the paper's Algorithm 2).")
    report.table(
        ["", "drawn digits", "for comparison"],
        [
            [
                "Frechet distance to held-out digits, pixels in [-1, 1]",
                f"{frechet['samples']:.3f}",
                f"{frechet['training digits']:.3f} (training digits)",
            ],
            [
                "recognised by a classifier with probability over 0.9",
                f"{share['samples']:.3f}",
                f"{share['held-out']:.3f} (held-out digits)",
            ],
            [
                "median distance to the nearest training digit, grey levels",
                f"{gap:.1f}",
                f"{usual:.1f} (held-out digits)",
            ],
            ["exact copies of a training digit", str(copies), ""],
        ],
    )
    report.section("Progressive generation")
    report.picture(
        pictures["progressive"],
        "The x_0 the model predicts while it walks from noise (left) to the digit (right).",
    )
    report.section("New, or remembered?")
    report.picture(
        pictures["neighbours"], "Top: drawn digits. Below each: its three nearest training digits."
    )
    likelihood_section(report, model, training, held_out, out)
    codec_section(report, model, held_out, out)
    report.section("Training")
    report.picture(pictures["loss"], "L_simple (Eq. 14) against the training step.")
    report.write(out / "report.html")
    say(
        f"Frechet distance {frechet['samples']:.3f} "
        f"(training digits {frechet['training digits']:.3f}); "
        f"recognised {share['samples']:.3f} (held-out digits {share['held-out']:.3f})",
        f"done in {(time.monotonic() - begun) / 60:.1f} minutes; open {out / 'report.html'}",
    )
    return 0


def likelihood_section(
    report: Report, model: Ddpm, training: MemoryImages, held_out: MemoryImages, out: Path
) -> None:
    """bits/dim of the held-out digits by number of network calls, beside simple codes."""
    images, levels = held_out.images, model.facts.grey_levels
    bounds: dict[str, dict[int, Bound]] = {"even": {}, "optimal": {}}
    with progress_bar("evaluations") as bar:
        task = bar.add_task("measuring errors", total=None, note="")
        model.errors(lambda count: bar.advance(task, count))
        bar.remove_task(task)
        calls = [k for k in CALLS if k <= model.diffusion.num_timesteps]
        task = bar.add_task("bits/dim", total=2 * sum(calls) * len(images), note="")
        for trajectory, measured in bounds.items():
            for k in calls:
                measured[k] = model.bound(
                    images,
                    steps=k,
                    trajectory=trajectory,
                    variance="analytic",
                    callback=lambda count: bar.advance(task, count),
                )
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
    for name, picture in pictures.items():
        save_png(picture, out / f"{name}.png")
    report.section("Likelihood")
    report.text(
        f"What the {len(images)} held-out digits cost in bits per pixel. For the model it is the "
        "variational bound (Eq. 5) of a chain of a few steps with the analytic variance; optimal "
        "timesteps are chosen by dynamic programming over the network's measured errors."
    )
    rows = [[name, f"{value:.3f}"] for name, value in baselines.items()]
    for name, points in bounds.items():
        for k, bound in points.items():
            cost = f"{bound.mean:.3f} ± {bound.standard_error:.3f}"
            rows.append([f"this model, {k} {name} steps", cost])
    report.table(["code", "bits/dim"], rows)
    report.picture(pictures["bits-per-dim"], "bits/dim against the number of network calls.")
    report.picture(
        pictures["rate-distortion"],
        f"Rate and distortion of progressive coding (Figure 5) over {calls[-1]} optimal steps.",
    )
    say(
        f"held-out digits: {best.mean:.3f} ± {best.standard_error:.3f} bits/dim with {calls[-1]} "
        f"optimal steps (histogram of each pixel {baselines['histogram of each pixel']:.3f})"
    )


def codec_section(report: Report, model: Ddpm, held_out: MemoryImages, out: Path) -> None:
    """The held-out digits as one real file: its size, and what its beginnings decode to."""
    with progress_bar("parts") as bar:
        progress = naming_bar(bar, "codec")
        comparison = compare_codec(
            model, held_out.images, fractions=FRACTIONS, single=SINGLE, callback=progress
        )
    pictures = comparison.pictures()
    for name, picture in pictures.items():
        save_png(picture, out / f"{name}.png")
    figures = comparison.figures
    report.section("Compression")
    report.text(
        f"All {len(held_out)} held-out digits as one file of {figures.archive:,} bytes, written "
        "and read back bit for bit (Algorithms 3 and 4). Every beginning of the file decodes to "
        "all of them, better with every byte. On this machine: "
        f"{comparison.speed()}. Cost: {comparison.overheads()}."
    )
    report.table(["lossless", "bits/dim"], comparison.size_rows())
    report.picture(pictures["prefixes"], "Growing beginnings of the file, and the originals.")
    report.picture(pictures["codec"], "Real bytes against error, beside what theory calculates.")
    report.table(comparison.prefix_head(), comparison.prefix_rows())
    say(
        f"held-out digits as one file: {figures.archive:,} bytes, "
        f"{comparison.bpd(figures.archive):.3f} bits/dim, exact "
        f"(WebP {comparison.bpd(comparison.lossless['WebP']):.3f})"
    )
