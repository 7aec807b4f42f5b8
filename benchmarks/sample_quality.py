"""Sample quality against the number of network calls: every sampler along every trajectory.

    python benchmarks/sample_quality.py runs/demo cifar10-small --out quality

For each model a table of the distance to real images and of the share that a classifier recognises
with more than 0.9: for runs of the digits the Frechet distance of the pixels to the held-out digits
and the demo's classifier, for RGB models of 32x32 pixels the distance by --features cifar10 to the
training images and its classifier. Cells are means over seeds with their standard errors.

Every measured cell is a line of OUT/cells.jsonl, and the same command goes on where it was stopped;
at the end OUT holds a table, MODEL.md, and a plot, MODEL.png, of every model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import UInt8
from matplotlib.figure import Figure
from torch import Tensor

from ddpm import Ancestral, Ddim, Ddpm, DpmSolver, Plan, Sampler, load
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.evaluation import DigitRecogniser, get_features, pixel_frechet_distance
from ddpm.evaluation.frechet import Gaussian, distance_of_gaussians
from ddpm.evaluation.score import CERTAIN
from ddpm.evaluation.statistics_file import SHIPPED, read_statistics
from ddpm.figures.grid import to_picture
from ddpm.provenance import fingerprint
from ddpm.runtime.device import Precision
from ddpm.sampling import Heun, UniPc, network_calls

SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": Ddim(),
    "dpm-solver": DpmSolver(),
    "unipc": UniPc(),
    "unipc3": UniPc(order=3),
    "heun": Heun(),
}
TRAJECTORIES = ("even", "quadratic", "optimal", "smooth", "karras", "log-snr")
RHO = 7  # of Karras et al. (2022)
LARGEST_BATCH = 256
Measure = Callable[[UInt8[Tensor, "n c h w"]], tuple[float, float]]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Runs, files or names of models: digits, or RGB images of 32x32 pixels."""
    out: Path = Path("sample-quality")
    """A folder for the cells, tables and plots."""
    samples: int = 256
    """Images of a cell."""
    calls: tuple[int, ...] = (5, 10, 20, 50)
    """Network calls; heun takes the largest odd number below where one is even."""
    seeds: int = 3
    """Of every cell."""
    samplers: tuple[str, ...] = tuple(SAMPLERS)
    """Which of them."""
    trajectories: tuple[str, ...] = TRAJECTORIES
    """Which of them."""
    calibrated: bool | None = None
    """Correct every predicted x_0; what the model and the sampler have by default."""
    reference: bool = True
    """Also ancestral sampling with all steps, one seed."""
    precision: Precision | None = None
    """Of the network; the model's own by default."""


@dataclass(frozen=True)
class Cell:
    """What decides one measurement."""

    model: str
    sampler: str
    trajectory: str
    plan: dict[str, object]
    calls: int
    seed: int
    samples: int
    precision: str

    @property
    def row(self) -> str:
        """The table's first column."""
        return f"{self.sampler}, {self.trajectory}"


@dataclass
class Cells:
    """What has been measured: distance and share of every cell, kept in a file line by line."""

    path: Path
    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for line in lines:
            found = json.loads(line)
            self.known[json.dumps(found["cell"])] = (found["distance"], found["share"])

    def measured(self, cell: Cell, measure: Callable[[], tuple[float, float]]) -> np.ndarray:
        """Distance and share; measured, if they are not known."""
        key = json.dumps(asdict(cell))
        if key not in self.known:
            distance, share = self.known[key] = measure()
            line = {"cell": asdict(cell), "distance": distance, "share": share}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{cell.row}, {cell.calls} calls, seed {cell.seed}: {distance:.3f}, {share:.3f}")
        return np.array(self.known[key])


def karras_timesteps(schedule: NoiseSchedule, k: int) -> tuple[int, ...]:
    """The nearest to k values of sigma / alpha whose seventh roots are evenly spaced."""
    level = -np.log(schedule.snr) / 2
    ends = np.exp(level[[0, -1]] / RHO)
    return nearest(level, RHO * np.log(np.linspace(*ends, k)))


def log_snr_timesteps(schedule: NoiseSchedule, k: int) -> tuple[int, ...]:
    """The nearest to k evenly spaced values of log SNR."""
    level = -np.log(schedule.snr)
    return nearest(level, np.linspace(level[0], level[-1], k))


def nearest(rising: np.ndarray, wanted: np.ndarray) -> tuple[int, ...]:
    """Where a rising sequence comes nearest to each of some values; no place twice."""
    steps = np.abs(rising[:, None] - wanted[None]).argmin(axis=0)
    places = np.arange(len(wanted))
    steps = np.maximum.accumulate(steps - places) + places
    return tuple(map(int, np.minimum(steps, len(rising) - len(wanted) + places)))


def plan_of(model: Ddpm, sampler: str, trajectory: str, steps: int, options: Options) -> Plan:
    """The plan of a cell; the ancestral sampler takes the analytic variance."""
    schedule = model.diffusion.schedule
    own = {"karras": karras_timesteps, "log-snr": log_snr_timesteps}
    chosen = own[trajectory](schedule, steps) if trajectory in own and steps > 1 else trajectory
    return Plan(
        None if isinstance(chosen, tuple) else steps,
        "even" if chosen in own else chosen,
        "analytic" if sampler == "ancestral" else None,
        calibrated=options.calibrated,
    )


def measure_of(model: Ddpm) -> Measure:
    """The distance and the share recognised of images of a model's format."""
    if model.format.shape == (3, 32, 32):
        features = get_features("cifar10", model.format.shape)
        statistics = read_statistics(SHIPPED["train"], "cifar10", features.size).statistics
        assert statistics is not None
        real = Gaussian.of_statistics(statistics)

        def of_cifar10(images: UInt8[Tensor, "n c h w"]) -> tuple[float, float]:
            found = [features(batch) for batch in images.split(LARGEST_BATCH)]
            vectors = np.concatenate([one.vectors for one in found]).astype(np.float64)
            probabilities = np.concatenate([one.probabilities for one in found])
            share = float((probabilities.max(axis=1) > CERTAIN).mean())
            return distance_of_gaussians(Gaussian.of_features(vectors), real), share

        return of_cifar10
    held_out = digits("test").images
    if model.format.shape != held_out.shape[1:]:
        raise SystemExit(f"there is no classifier of images of shape {model.format.shape}")
    recogniser = DigitRecogniser(digits("train"))
    return lambda images: (
        pixel_frechet_distance(images, held_out, model.format),
        recogniser.fraction(images),
    )


def cells_of(
    name: str, model: Ddpm, options: Options
) -> Iterator[tuple[str, int, list[Cell], Plan, Sampler]]:
    """Row, calls, cells of all seeds, plan and sampler of everything to be measured."""
    settings = (fingerprint(model), options.samples, str(model.precision))
    wanted = [
        (sampler, trajectory, calls)
        for sampler in options.samplers
        for trajectory in options.trajectories
        for calls in options.calls
    ]
    total = model.diffusion.num_timesteps
    if options.reference:
        wanted.append(("ancestral", "all steps", total))
    for sampler, trajectory, calls in wanted:
        draw, seeds = SAMPLERS[sampler], options.seeds
        steps = max(k for k in range(1, calls + 1) if network_calls(draw, k) <= calls)
        if trajectory == "all steps":
            plan, seeds = Plan(), 1
        else:
            plan = plan_of(model, sampler, trajectory, steps, options)
        plan = model.plan_samples(draw, plan)[1]
        made = network_calls(draw, steps)
        cells = [
            Cell(settings[0], sampler, trajectory, asdict(plan), made, seed, *settings[1:])
            for seed in range(seeds)
        ]
        yield cells[0].row, calls, cells, plan, draw


def shown(values: np.ndarray, digits_behind: int) -> str:
    """A mean, with its standard error if there are several values."""
    mean = f"{values.mean():.{digits_behind}f}"
    if len(values) == 1:
        return mean
    error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{mean} ± {error:.{digits_behind}f}"


def table(columns: list[int], rows: dict[str, dict[int, np.ndarray]]) -> str:
    """Markdown: a row for each sampler and trajectory, a column for each number of calls."""
    head = ["sampler, trajectory", *(f"{calls} calls" for calls in columns)]
    lines = [head, ["---"] * len(head)]
    for row, found in rows.items():
        cells = [
            f"{shown(found[k][:, 0], 2)}; {shown(found[k][:, 1], 3)}" if k in found else ""
            for k in columns
        ]
        lines.append([row, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(rows: dict[str, dict[int, np.ndarray]]) -> Figure:
    """Distance against calls."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row, found in rows.items():
        means = [values[:, 0].mean() for values in found.values()]
        if "all steps" in row:
            axes.axhline(means[0], color="grey", linestyle=":", label=row)
        else:
            axes.plot(list(found), means, marker="o", markersize=3, label=row)
    axes.set(xlabel="network calls", ylabel="Frechet distance", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def measure_model(name: str, options: Options, cells: Cells) -> None:
    """All cells of a model, its table and its plot."""
    model = load(name, precision=options.precision)
    measure = measure_of(model)
    size = min(model.format.batch(64), LARGEST_BATCH, options.samples)
    rows: dict[str, dict[int, np.ndarray]] = {}

    for row, calls, wanted, plan, sampler in cells_of(name, model, options):

        def drawn(seed: int, plan: Plan = plan, sampler: Sampler = sampler) -> tuple[float, float]:
            return measure(
                model.sample(
                    options.samples, seed=seed, sampler=sampler, plan=plan, batch_size=size
                )
            )

        found = [cells.measured(cell, lambda c=cell: drawn(c.seed)) for cell in wanted]
        rows.setdefault(row, {})[calls] = np.stack(found)
    columns = sorted({calls for found in rows.values() for calls in found})
    text = table(columns, rows)
    words = f"{name}: {options.samples} images a cell; Frechet distance; share recognised\n\n"
    print(f"\n{words}{text}")
    stem = Path(name).stem
    (options.out / f"{stem}.md").write_text(words + text)
    save_png(to_picture(plot(rows)), options.out / f"{stem}.png")


def main(options: Options) -> None:
    """One model after the other."""
    options.out.mkdir(parents=True, exist_ok=True)
    cells = Cells(options.out / "cells.jsonl")
    for name in options.models:
        measure_model(name, options, cells)


if __name__ == "__main__":
    main(tyro.cli(Options))
