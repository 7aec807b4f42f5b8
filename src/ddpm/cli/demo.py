"""`ddpm demo`: train, sample and show the embedded digits, and write it all into one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddpm.cli.outcome import finish
from ddpm.cli.page_sections import (
    Pictures,
    Subject,
    codec_section,
    likelihood_section,
    quality_rows,
    training_section,
)
from ddpm.cli.parse import parse, say, typed
from ddpm.cli.progress import progress_bar
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.errors import check
from ddpm.figures.grid import image_grid
from ddpm.figures.html_page import HtmlPage
from ddpm.figures.neighbours import neighbours_figure
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runs.folder import RunFolder
from ddpm.runs.settings import stored_config
from ddpm.runtime.paths import user_path
from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import get_preset

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
    out = RunFolder(user_path(args.out))
    resume = bool(out.checkpoints())
    config = stored_config(out) if resume else get_preset("digits")  # which may have changed since
    if args.steps is not None:
        config = replace(config, training=replace(config.training, steps=args.steps))
    training, held_out = digits("train"), digits("test")
    with progress_bar() as progress:
        result = train(
            config, training, out.path, resume=resume, held_out=held_out, progress=progress
        )
    if result.stopped:
        say(f"stopped at step {result.step:,}, saved; resume with: ddpm demo --out {out.path}")
        return 130

    subject = Subject(load(out.path), training, held_out, "digits")
    chunks = Provenance.of(subject.model, str(out.path), ["demo", *argv]).chunks()
    page = HtmlPage("A diffusion model draws digits", chunks)
    introduction(page, subject.model, result, len(training), args.samples)
    pictures = samples_section(page, subject, args.samples)
    pictures |= likelihood_section(page, subject)[1]
    pictures |= codec_section(page, subject)
    pictures |= training_section(page, out)
    for name, picture in pictures.items():
        save_png(picture, out.path / f"{name}.png", chunks)
    report = out.path / "report.html"
    page.write(report)
    run = typed(out.path)
    finish(
        f"done in {(time.monotonic() - begun) / 60:.1f} minutes; open {report}",
        made=[report, *(out.path / f"{name}.png" for name in pictures)],
        then={
            f"ddpm sample {run} --steps 20": "draw more",
            f"ddpm compress {run} IMAGE -o FILE.ddpm": "compress an image of 8x8 pixels",
            "ddpm train images --data FOLDER": "a model of your own images",
        },
    )
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


def samples_section(page: HtmlPage, subject: Subject, count: int) -> Pictures:
    """Digits drawn by Algorithm 2: how good, how they come to be, and whether they are new."""
    model, training = subject.model, subject.training
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
    page.section("Samples")
    page.picture(pictures["samples"], "Digits drawn by the model (the paper's Algorithm 2).")
    page.table(["", "drawn digits", "for comparison"], quality_rows(subject, samples))
    page.section("Progressive generation")
    page.picture(
        pictures["progressive"],
        "The x_0 the model predicts while it walks from noise (left) to the digit (right).",
    )
    page.section("New, or remembered?")
    page.picture(
        pictures["neighbours"], "Top: drawn digits. Below each: its three nearest training digits."
    )
    return pictures
