"""What a page about a model is made of: the demo's sections, and those of `ddpm report`.

Each measures something, adds it to the page, and gives back its pictures by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.cli.outcome import tell
from ddpm.cli.parse import say
from ddpm.cli.progress import progress_bar
from ddpm.data import ImageSource, MemoryImages
from ddpm.diffusion.gaussian import VarianceType
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.evaluation.codec_comparison import compare_codec
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.evaluation.simple_codes import context_bpd, histogram_bpd, uniform_bpd
from ddpm.figures.bound_plots import rate_distortion_plot, steps_plot
from ddpm.figures.codec_plots import comparison_pictures
from ddpm.figures.curves import loss_curve
from ddpm.figures.html_page import HtmlPage
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan, TrajectoryName
from ddpm.model import Ddpm
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import read_stats

CALLS = (10, 25, 50)  # numbers of network calls at which bits/dim are measured
FRACTIONS = (0.02, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the archive that are decoded
SINGLE = 8  # images that are also compressed one by one
HISTOGRAM = "histogram of each pixel"

Pictures = dict[str, Image.Image]


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Args:
        model: a trained one.
        training: images that it was trained on, or the first of them.
        held_out: others, of which it has seen none.
        what: they are called.
    """

    model: Ddpm
    training: MemoryImages
    held_out: MemoryImages
    what: str = "images"


def quality_rows(
    subject: Subject, samples: UInt8[Tensor, "n c h w"], as_many: bool = False
) -> list[list[str]]:
    """Rows of a table: how good samples are, beside real images.

    Args:
        subject: whose they are.
        samples: that it drew.
        as_many: compare the distance with that of as many training images, not of all: it falls
            with their number.
    """
    training, held_out, what = subject.training, subject.held_out, subject.what
    real = training.images[: len(samples)] if as_many else training.images
    real_words = f"{len(real):,} training {what}" if as_many else f"training {what}"
    drawn, usual = (
        pixel_frechet_distance(images, held_out.images, held_out.format)
        for images in (samples, real)
    )
    rows = [
        [
            f"Frechet distance to held-out {what}, pixels in [-1, 1]",
            f"{drawn:.3f}",
            f"{usual:.3f} ({real_words})",
        ]
    ]
    said = f"Frechet distance {drawn:.3f} ({real_words} {usual:.3f})"
    tell(samples={"count": len(samples), "frechet_pixels": drawn, "frechet_of_real": usual})
    if what == "digits":
        recogniser = DigitRecogniser(training)
        seen, expected = (recogniser.fraction(images) for images in (samples, held_out.images))
        rows.append(
            [
                "recognised by a classifier with probability over 0.9",
                f"{seen:.3f}",
                f"{expected:.3f} (held-out {what})",
            ]
        )
        tell(samples={"recognised": seen, "recognised_of_real": expected})
        said += f"; recognised {seen:.3f} (held-out {what} {expected:.3f})"
    gap, usual_gap = (
        nearest_neighbours(images, training.images)[1] for images in (samples, held_out.images)
    )
    say(said)
    return [
        *rows,
        [
            f"median distance to the nearest training {what.removesuffix('s')}, grey levels",
            f"{float(gap.median()):.1f}",
            f"{float(usual_gap.median()):.1f} (held-out {what})",
        ],
        [f"exact copies of a training {what.removesuffix('s')}", str(int((gap == 0).sum())), ""],
    ]


def likelihood_section(page: HtmlPage, subject: Subject) -> tuple[Bound, Pictures]:
    """bits/dim of the held-out images by number of network calls, beside simple codes.

    Returns:
        The bound of the most calls on the best trajectory, and the pictures.
    """
    model, images, what = subject.model, subject.held_out, subject.what
    variance, trajectories = kinds_of_chains(model)
    total = model.diffusion.num_timesteps
    calls = [k for k in CALLS if k <= total] or [total]
    bounds: dict[str, dict[int, Bound]] = {}
    with progress_bar() as progress:
        for trajectory in trajectories:
            bounds[trajectory] = {
                k: model.bound(images, plan=Plan(k, trajectory, variance), progress=progress)
                for k in calls
            }
    baselines, levels = simple_codes(subject), images.format.levels
    name, best = trajectories[-1], bounds[trajectories[-1]][calls[-1]]
    pictures = {
        "bits-per-dim": steps_plot(
            {of: {k: b.mean for k, b in points.items()} for of, points in bounds.items()},
            baselines,
        ),
        "rate-distortion": rate_distortion_plot(best),
    }
    page.section("Likelihood")
    page.text(
        f"What the {len(images)} held-out {what} cost in bits per pixel. For the model it is the "
        f"variational bound (Eq. 5) of a chain of a few steps with the {variance} variance; "
        "optimal timesteps are chosen by dynamic programming over the network's measured error."
    )
    rows = [["uniform", f"{uniform_bpd(levels):.3f}"]]
    rows += [[code, f"{value:.3f}"] for code, value in baselines.items()]
    rows += [
        [f"this model, {k} {of} steps", with_error(bound)]
        for of, points in bounds.items()
        for k, bound in points.items()
    ]
    page.table(["code", "bits/dim"], rows)
    page.picture(pictures["bits-per-dim"], "bits/dim against the number of network calls.")
    page.picture(
        pictures["rate-distortion"],
        f"Rate and distortion of progressive coding (Figure 5) over {calls[-1]} {name} steps.",
    )
    tell(
        likelihood={
            "images": len(images),
            "bits_per_dim": {
                of: {k: bound.mean for k, bound in points.items()} for of, points in bounds.items()
            },
            "baselines": baselines,
        }
    )
    say(
        f"held-out {what}: {with_error(best)} bits/dim with {calls[-1]} {name} steps (histogram of "
        f"each pixel {baselines[HISTOGRAM]:.3f})"
    )
    return best, pictures


def with_error(bound: Bound) -> str:
    """bits/dim with their standard error, which a single image does not have."""
    error = f" ± {bound.standard_error:.3f} (standard error)" if len(bound.total) > 1 else ""
    return f"{bound.mean:.3f}{error}"


def kinds_of_chains(model: Ddpm) -> tuple[VarianceType, tuple[TrajectoryName, ...]]:
    """The best variance of short chains that a model allows, and its trajectories, the best
    last."""
    if model.denoising_error is None:
        return model.diffusion.variance_type, ("even",)
    learned = model.diffusion.learns_variance
    return model.diffusion.variance_type if learned else "analytic", ("even", "optimal")


def simple_codes(subject: Subject) -> dict[str, float]:
    """bits/dim of codes that know the training images' histograms."""
    training, images = subject.training.images, subject.held_out.images
    levels = subject.held_out.format.levels
    return {
        HISTOGRAM: histogram_bpd(training, images, levels),
        "the same, given the left and upper pixel": context_bpd(training, images, levels),
    }


def codec_section(page: HtmlPage, subject: Subject) -> Pictures:
    """The held-out images as one real file: its size, and what its prefixes decode to."""
    held_out, what = subject.held_out, subject.what
    with progress_bar() as progress:
        comparison = compare_codec(
            subject.model, held_out.images, fractions=FRACTIONS, single=SINGLE, progress=progress
        )
    pictures, figures = comparison_pictures(comparison), comparison.figures
    page.section("Compression")
    page.text(
        f"All {len(held_out)} held-out {what} as one file of {figures.archive:,} bytes, written "
        "and read back bit for bit (Algorithms 3 and 4). Every prefix of the file decodes to "
        "all of them, better with every byte. On this machine: "
        f"{comparison.speed()}. Cost: {comparison.overheads()}."
    )
    page.table(["lossless", "bits/dim"], comparison.size_rows())
    page.picture(pictures["prefixes"], "Growing prefixes of the file, and the originals.")
    page.picture(pictures["codec"], "Real bytes against error, beside what theory calculates.")
    page.table(comparison.prefix_head(), comparison.prefix_rows())
    tell(codec=comparison.document())
    webp = comparison.lossless.get("WebP")  # not every build of Pillow has it
    beside = "" if webp is None else f" (WebP {comparison.bpd(webp):.3f})"
    say(
        f"held-out {what} as one file: {figures.archive:,} bytes, "
        f"{comparison.bpd(figures.archive):.3f} bits/dim, exact{beside}"
    )
    return pictures


def training_section(page: HtmlPage, run: RunFolder) -> Pictures:
    """The training loss of a run.

    Raises:
        DdpmError: its log holds none.
    """
    picture = loss_curve(read_stats(run))
    page.section("Training")
    page.picture(picture, "The training loss against the step (Eq. 14: L_simple).")
    return {"loss": picture}


def first_images(source: ImageSource, count: int) -> MemoryImages:
    """The first images of a set, in memory, with their labels where they have some."""
    chosen = torch.arange(min(count, len(source)))
    labels = getattr(source, "labels", None)
    return MemoryImages(
        source[chosen],
        source.format.levels,
        source.name,
        None if labels is None else labels[chosen],
    )
