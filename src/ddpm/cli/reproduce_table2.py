"""`ddpm reproduce table2`: the paper's ablation of predictions, losses and variances, at a scale
that anyone can afford.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, say
from ddpm.cli.progress import progress_bar
from ddpm.data import MemoryImages
from ddpm.data.digits import digits
from ddpm.diffusion.gaussian import PredictionType, VarianceType
from ddpm.diffusion.losses import LossType
from ddpm.diffusion.schedule import ScheduleName
from ddpm.errors import Diverged, check
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runs.folder import RunFolder
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.paths import user_path
from ddpm.training.loop import train
from ddpm.training.presets import get_preset


@dataclass(frozen=True)
class Variant:
    """One row: how the network is read and trained, and what Table 2 says of it (IS / FID)."""

    prediction: PredictionType
    loss: LossType
    variance: VarianceType
    paper: str = ""
    schedule: ScheduleName = "linear"

    @property
    def name(self) -> str:
        """Names the variant's folder and its row."""
        name = f"{self.prediction}-{self.loss}-{self.variance}"
        return name if self.schedule == "linear" else f"{name}-{self.schedule}-schedule"


TABLE2 = (
    Variant("previous_mean", "vlb", "learned", "7.28 / 23.69"),
    Variant("previous_mean", "vlb", "fixed_large", "8.06 / 13.22"),
    Variant("previous_mean", "simple", "fixed_large", "unstable"),
    Variant("epsilon", "vlb", "learned", "unstable"),
    Variant("epsilon", "vlb", "fixed_large", "7.67 / 13.51"),
    Variant("epsilon", "simple", "fixed_large", "9.46 / 3.17"),
    Variant("epsilon", "hybrid", "learned_range"),
    Variant("sample", "vlb", "fixed_large"),
    Variant("sample", "simple", "fixed_large"),
    Variant("v_prediction", "simple", "fixed_large"),
    Variant("epsilon", "vlb", "fixed_large", schedule="learned"),
)


@dataclass(frozen=True)
class Table2:
    """Train every variant of Table 2 (and five beyond it) at equal cost, and measure them."""

    steps: int | None = None
    """Training steps of each variant; the preset's by default."""
    samples: int = 256
    """Digits to draw of each, with all reverse steps."""
    images: int | None = None
    """Held-out digits to measure bits/dim on, the first of the set; all by default."""
    out: Path = Path("runs/table2")
    """A folder with one run a variant; existing runs are resumed."""


def run(argv: Sequence[str]) -> int:
    """Train, measure and print the table beside the paper's."""
    args = parse(Table2, argv, "reproduce table2")
    check(args.samples >= 16, f"--samples must be at least 16, got {args.samples}")
    check(args.images is None or args.images >= 1, f"--images must be positive, got {args.images}")
    training, held_out = digits("train"), digits("test")
    recogniser = DigitRecogniser(training)
    out = user_path(args.out)
    rows: list[dict[str, object]] = []
    for number, variant in enumerate(TABLE2, start=1):
        say(f"{number} of {len(TABLE2)}: {variant.name}")
        folder = out / variant.name
        try:
            if not fit(variant, training, folder, args.steps):
                say("stopped, saved; resume with the same command")
                return 130
        except Diverged as error:
            rows.append({"variant": variant.name, "paper": variant.paper, "diverged": str(error)})
            continue
        measured = measure(load(folder), held_out, recogniser, args)
        rows.append({"variant": variant.name, "paper": variant.paper, **measured})
        say(", ".join(f"{key} {value:.3f}" for key, value in measured.items()))
    document = {"steps": args.steps or get_preset("digits").training.steps, "rows": rows}
    write_text(out / "table2.json", to_json(document, 2) + "\n")
    Console().print(as_table(rows))
    tell(**document)
    finish(f"written to {out / 'table2.json'}", made=[out / "table2.json"])
    return 0


def fit(variant: Variant, training: MemoryImages, folder: Path, steps: int | None) -> bool:
    """Train one variant from the preset, or go on with it; whether it came to its end."""
    base = get_preset("digits")
    config = replace(
        base,
        diffusion=replace(
            base.diffusion,
            schedule=variant.schedule,
            prediction_type=variant.prediction,
            variance_type=variant.variance,
        ),
        training=replace(
            base.training,
            optimizer="adam",  # the paper's, with the rate that suits it
            lr=2e-3,
            stratified_time=False,
            loss=variant.loss,
            steps=base.training.steps if steps is None else steps,
            sample_every=0,
        ),
    )
    resume = bool(RunFolder(folder).checkpoints())
    with progress_bar() as progress:
        return train(config, training, folder, resume=resume, progress=progress).stopped is None


def measure(
    model: Ddpm, held_out: MemoryImages, recogniser: DigitRecogniser, args: Table2
) -> dict[str, float]:
    """The demo's two measures of samples, and bits/dim of held-out digits, with all steps."""
    images = held_out.images[: args.images]
    with progress_bar() as progress:
        samples = model.sample(args.samples, batch_size=args.samples, progress=progress)
        bound = model.bound(images, progress=progress)
    return {
        "frechet": pixel_frechet_distance(samples, held_out.images, model.format),
        "recognised": recogniser.fraction(samples),
        "bits_per_dim": bound.mean,
        "standard_error": bound.standard_error,
    }


def as_table(rows: list[dict[str, object]]) -> Table:
    """The rows for the terminal, the paper's IS / FID on CIFAR-10 in the last column."""
    table = Table(
        "prediction, loss, variance", "recognised", "Frechet", "bits/dim", "paper: IS / FID"
    )
    for row in rows:
        if "diverged" in row:
            cells = ["diverged", "", ""]
        else:
            cells = [f"{row[key]:.3f}" for key in ("recognised", "frechet", "bits_per_dim")]
        table.add_row(str(row["variant"]), *cells, str(row["paper"]))
    return table
