"""`ddpm demo`: train, sample and show the embedded digits, and write it all into one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddpm.checkpoint import checkpoints
from ddpm.cli.parse import parse, say
from ddpm.data.digits import digits
from ddpm.errors import check
from ddpm.figures.curves import loss_curve
from ddpm.figures.grid import image_grid, save_png
from ddpm.figures.neighbours import nearest_neighbours, neighbours_figure
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.metrics import DigitRecogniser, pixel_frechet_distance
from ddpm.model import load
from ddpm.report import Report
from ddpm.sampling import SampleState
from ddpm.training.log import progress_bar, read_stats
from ddpm.training.loop import train
from ddpm.training.presets import get_preset


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
    result = train(config, training, out, resume=bool(checkpoints(out)))
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
