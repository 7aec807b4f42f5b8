"""`ddpm report RUN`: every figure and measure of a trained model on one page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.earlier import is_ours
from ddpm.cli.outcome import finish, tell
from ddpm.cli.page_sections import (
    Subject,
    codec_section,
    first_images,
    likelihood_section,
    quality_rows,
    training_section,
)
from ddpm.cli.parse import as_flags, parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.cli.report_parts import (
    earlier_section,
    figure_section,
    model_section,
    paper_sections,
)
from ddpm.cli.reproduce_table1 import SPLITS, images_of
from ddpm.cli.sample import free_name
from ddpm.data.images import ImageSource
from ddpm.data.open import Split
from ddpm.errors import DdpmError, check
from ddpm.figures.html_page import HtmlPage
from ddpm.figures.named import FIGURES
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runs.folder import RunFolder
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.paths import exists, user_path

STEPS = 50  # network calls of a sample where nobody says more
REAL = 2000  # images of either split that samples and simple codes are compared with
FILED = 16  # images that are compressed
IN_LIKELIHOOD = "rate-distortion"  # the figure that the likelihood's section has
DIGITS = "digits"


@dataclass(frozen=True)
class Report:
    """One page with all figures of a model, what was measured of it, and the paper's numbers beside
    its own; what cannot be made is listed with the reason."""

    out: Path | None = None
    """The page; report.html in the run's folder, or NAME-report.html in the current one, by
    default."""
    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on and to show; what the model was trained on by default."""
    samples: int = 256
    """Samples to draw and measure."""
    images: int = 64
    """Held-out images to measure bits/dim on, the first of the set."""
    steps: int | None = None
    """Network calls of every sample; 50 by default, or all T where there are fewer."""

    def __post_init__(self) -> None:
        check(self.samples >= 2, f"--samples must be at least 2, got {self.samples}")
        check(self.images >= 1, f"--images must be positive, got {self.images}")


@dataclass
class Work:
    """A page that is being made.

    Args:
        model: it is about.
        name: of the model, as it was typed.
        args: what was asked for.
        page: so far.
        images: of either split, or why there are none.
        missing: what is not on the page, and why.
    """

    model: Ddpm
    name: str
    args: Report
    page: HtmlPage
    images: dict[Split, ImageSource | str]
    missing: list[list[str]] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        """Of samples."""
        most = min(STEPS, self.model.diffusion.num_timesteps)
        return Plan(most if self.args.steps is None else self.args.steps)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Make a part of the page, or note why there is none."""
        try:
            yield
        except (DdpmError, OSError) as error:
            self.missing.append([what, as_flags(" ".join(str(error).split()))])
            say(f"no {what}: {self.missing[-1][1]}")

    def source(self, split: Split) -> ImageSource:
        """The images of a split.

        Raises:
            DdpmError: there are none.
        """
        found = self.images[split]
        if isinstance(found, str):
            raise DdpmError(found)
        return found

    def subject(self, held_out: int) -> Subject:
        """The model, training images, and that many held-out ones."""
        training = first_images(self.source("train"), REAL)
        of_digits = self.model.config.data.path == DIGITS and self.args.data in (None, DIGITS)
        what = DIGITS if of_digits else "images"
        return Subject(self.model, training, first_images(self.source("test"), held_out), what)


def run(argv: Sequence[str]) -> int:
    """Everything in order, then the page."""
    name, rest = positional(argv, "a run or checkpoint", "report")
    args = parse(Report, rest, f"report {name or 'RUN'}")
    begun = time.monotonic()
    model = load(name)
    out = page_path(name, args.out)
    images = {split: images_of(model, split, args.data) for split in SPLITS}
    source = Provenance.of(model, name, ["report", *argv])
    work = Work(model, name, args, HtmlPage(f"{source.name}, a diffusion model"), images)
    model.plan_samples("ancestral", work.plan)
    model.chain(work.plan)
    check_writable(out.parent)
    work.page.chunks = source.chunks()
    fill(work)
    work.page.write(out)
    count = len(work.missing)
    left = f"; {count} part{'s' * (count > 1)} left out, and it says why" * bool(count)
    tell(left_out=dict(work.missing))
    minutes = (time.monotonic() - begun) / 60
    finish(f"done in {minutes:.1f} minutes; open {out}{left}", made=[out])
    return 0


def page_path(name: str, out: Path | None) -> Path:
    """Where the page goes: nothing that is there already is overwritten."""
    if out is None:
        path = user_path(name)
        named = f"{path.stem if path.is_file() else path.name}-report.html"
        return free_name(path / "report.html" if is_ours(path) else path.with_name(named))
    out = user_path(out)
    check(
        out.suffix.lower() in (".html", ".htm"),
        f"a report is a page; give --out a .html, not {out}",
    )
    check(not exists(out), f"{out} is there already and is not overwritten; choose another --out")
    return out


def fill(work: Work) -> None:
    """All parts, each with what it needs."""
    page, model = work.page, work.model
    model_section(page, model)
    for name in FIGURES:
        if name != IN_LIKELIHOOD:
            with work.attempt(f"figure {name}"):
                figure_section(page, model, name, work.plan, work.source)
    with work.attempt("measures of samples"):
        samples_section(work)
    best: Bound | None = None
    with work.attempt(f"likelihood and figure {IN_LIKELIHOOD}"):
        best, _ = likelihood_section(page, work.subject(work.args.images))
    with work.attempt("compression"):
        codec_section(page, work.subject(min(work.args.images, FILED)))
    with work.attempt("training curve"):
        training_section(page, RunFolder(user_path(work.name)))
    paper_sections(page, model, work.name, best)
    with work.attempt("results of before"):
        earlier_section(page, model, work.name)
    if work.missing:
        page.section("What is not on this page")
        page.table(["", "why"], work.missing)


def samples_section(work: Work) -> None:
    """How good samples are, beside real images."""
    subject, plan, count = work.subject(REAL), work.plan, work.args.samples
    with progress_bar() as progress:
        samples = work.model.sample(count, plan=plan, progress=progress)
    rows = quality_rows(subject, samples, as_many=True)
    work.page.section("Samples beside real images")
    work.page.text(
        f"{count:,} samples with {plan.steps:,} network calls each, {len(subject.training):,} "
        f"training and {len(subject.held_out):,} held-out {subject.what}."
    )
    work.page.table(["", f"drawn {subject.what}", "for comparison"], rows)
