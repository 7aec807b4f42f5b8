"""bits/dim against network calls, with a variance for each pixel and for each colour and frequency.

    python benchmarks/spectral.py [cifar10-small] --data CIFAR10 [--out spectral.md]

Measures the denoising error of a model on training images, in both kinds of coordinates at once,
and then the bound of test images with optimal timesteps for each number of calls; and the path
alone, from noise down to x_t*, through those timesteps. Means over the images with their standard
errors; the difference is that of the same images with the same noise. The noise of an image depends
on t only, so that a network call that two trajectories share is made once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from ddpm import Ddpm, Plan, get_preset, load, open_data
from ddpm.cli.progress import progress_bar
from ddpm.config import DiffusionConfig, UNetConfig
from ddpm.data.images import FirstImages, ImageFormat, ImageSource
from ddpm.data.open import Split
from ddpm.diffusion.bound_terms import prior_bpd, vb_term_from_p
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.errors import check
from ddpm.likelihood.trajectory import cheapest, in_coordinates, predicted_bpd, step_costs
from ddpm.runtime.atomic import write_text
from ddpm.runtime.progress import Counter
from ddpm.runtime.randomness import Randomness

Array = NDArray[np.float64]
VARIANCES = {"analytic": "per pixel", "spectral": "per colour and frequency"}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: tyro.conf.Positional[str] = "cifar10-small"
    """A run, a checkpoint, or the name of a model that comes along."""
    data: str | None = None
    """Images to measure on; what the model was trained on by default."""
    train: int = 600
    """Training images that the error is measured on."""
    timesteps: int | None = 64
    """At how many timesteps."""
    images: int = 256
    """Test images, the first of the set."""
    steps: tuple[int, ...] = (4, 6, 8, 10, 15, 20, 25, 35, 50)
    """Network calls of the whole bound."""
    ends: tuple[int, ...] = (5, 10, 20, 40, 60)
    """Timesteps t* at which a path ends, counted from 0."""
    calls: tuple[int, ...] = (2, 3, 4, 6, 8, 10, 15, 20)
    """Network calls of a path, with that at t*."""
    batch_size: int = 64
    """Test images at a time."""
    measured: Path | None = None
    """A file for the measured model, which is read instead if it is there."""
    out: Path = Path("spectral.md")
    """The tables."""
    dry: bool = False
    """A trial: a tiny network that nobody trained, and few images."""


class Batch:
    """Images whose x_t are made once for each t, and of which the network is asked once."""

    def __init__(self, model: Ddpm, images: Tensor, index: Tensor, counter: Counter) -> None:
        self.model, self.counter = model, counter
        self.x_start, self.index = model.format.to_unit(images), index
        self.denoiser, self.noise = model.denoiser(), Randomness(0, "bound")
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def at(self, timestep: int) -> tuple[Tensor, Tensor]:
        """x_t, and what the network says of it."""
        if timestep not in self.known:
            t = torch.full_like(self.index, timestep)
            noise = self.noise.normal(self.index, self.model.format.shape, timestep)
            x_t = self.model.diffusion.q_sample(self.x_start, t, noise)
            self.known[timestep] = x_t, self.denoiser(x_t, t)
            self.counter.advance(len(t))
        return self.known[timestep]

    def terms(self, chain: GaussianDiffusion) -> Tensor:
        """[n, K+1]: see below."""
        found = []
        for i, timestep in enumerate(chain.schedule.timesteps):
            x_t, output = self.at(int(timestep))
            t = torch.full_like(self.index, i)
            p = chain.p_mean_variance_from_output(output, x_t, t)
            levels = self.model.format.levels
            found.append(vb_term_from_p(chain, p, self.x_start, x_t, t, levels))
        found.append(prior_bpd(chain, self.x_start))
        return torch.stack(found, dim=1).double().cpu()


def tiny() -> Ddpm:
    """A network that takes no time."""
    layers = UNetConfig(
        ch=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), dropout=0.0, norm_groups=4
    )
    diffusion = DiffusionConfig(timesteps=20, beta_end=0.2)
    config = replace(get_preset("digits"), network=layers, diffusion=diffusion)
    return Ddpm(config, ImageFormat(1, 8, 8, 17), config.build_network((1, 8, 8)))


def trial(options: Options) -> Options:
    """Small numbers that fit the tiny network."""
    return replace(
        options, data="digits", train=20, timesteps=8, images=12, batch_size=5,
        steps=(2, 5), ends=(1, 3), calls=(2, 4),
    )  # fmt: skip


def measured_model(options: Options) -> Ddpm:
    """The model with its error in both kinds of coordinates, measured here or read."""
    if options.measured is not None and options.measured.exists():
        return load(options.measured)
    model = tiny() if options.dry else load(options.model)
    source = images_of(model, options, "train")
    with progress_bar() as progress:
        model.measure(source, count=options.train, timesteps=options.timesteps, progress=progress)
    if options.measured is not None:
        model.save(options.measured)
    return model


def images_of(model: Ddpm, options: Options, split: Split) -> ImageSource:
    """The images of a split."""
    path, shape = options.data or model.config.data.path, model.format
    check(path is not None, "say where the images are with --data")
    return open_data(path, split, image_size=shape.height, channels=shape.channels)


def wholes(model: Ddpm, options: Options) -> dict[tuple[str, int], Plan]:
    """The plan of every bound, by variance and calls; with the timesteps themselves."""
    plans = {}
    for variance in VARIANCES:
        for k in options.steps:
            times = model.chain(Plan(k, "optimal", variance)).schedule.timesteps
            plans[variance, k] = Plan(trajectory=tuple(times.tolist()), variance=variance)
    return plans


def paths(model: Ddpm, options: Options, visited: set[int]) -> dict[tuple[str, int, int], Plan]:
    """The plan of every path, by variance, t* and calls, through timesteps that are visited."""
    plans, schedule = {}, model.diffusion.schedule
    allowed = np.array(sorted(visited | set(options.ends)))
    forbidden = np.setdiff1d(np.arange(schedule.num_timesteps), allowed)
    for variance in VARIANCES:
        spectral = variance == "spectral"
        costs = step_costs(schedule, in_coordinates(model.denoising_error, spectral)).copy()
        costs[forbidden] = np.inf
        for end in options.ends:
            last = np.full(schedule.num_timesteps, np.inf)
            last[end] = 0.0
            for k in options.calls:
                times = cheapest(costs, last, k)
                plans[variance, end, k] = Plan(trajectory=tuple(times.tolist()), variance=variance)
    return plans


def terms(model: Ddpm, options: Options, plans: dict[Any, Plan]) -> dict[Any, Array]:
    """[n, K+1] of every plan: of each image the terms of Eq. 5 from L_0 on, and then its prior.

    As `ddpm.likelihood.bound.evaluate_bound` computes them, with the same noise.
    """
    source = FirstImages(images_of(model, options, "test"), options.images)
    chains = {key: model.chain(plan) for key, plan in plans.items()}
    found: dict[Any, list[Tensor]] = {key: [] for key in plans}
    visited = len({t for plan in plans.values() for t in plan.trajectory})
    with torch.inference_mode(), progress_bar() as progress:
        counter = Counter(progress, len(source) * visited, "bits/dim")
        for rows in torch.arange(len(source)).split(options.batch_size):
            images, index = source[rows].to(model.device), rows.to(model.device)
            batch = Batch(model, images, index, counter)
            for key, chain in chains.items():
                found[key].append(batch.terms(chain))
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}


def mean_and_error(values: Array, digits: int = 3) -> str:
    """A mean over images and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def bound_table(model: Ddpm, options: Options, found: dict[Any, Array]) -> str:
    """Totals by variance and number of calls."""
    error, schedule = model.denoising_error, model.diffusion.schedule
    lines = [f"| network calls | {' | '.join(map(str, options.steps))} |"]
    lines.append("| --- " * (1 + len(options.steps)) + "|")
    totals = {key: values.sum(axis=1) for key, values in found.items()}
    for variance, name in VARIANCES.items():
        cells = [mean_and_error(totals[variance, k]) for k in options.steps]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    saved = [totals["analytic", k] - totals["spectral", k] for k in options.steps]
    lines.append(f"| saved | {' | '.join(mean_and_error(s, 4) for s in saved)} |")
    for variance, name in VARIANCES.items():
        spectral, cells = variance == "spectral", []
        for k in options.steps:
            times = model.chain(Plan(k, "optimal", variance)).schedule.timesteps
            cells.append(f"{predicted_bpd(schedule, error, times, spectral):.3f}")
        lines.append(f"| {name}, as the training images predict | {' | '.join(cells)} |")
    return "\n".join(lines)


def path_table(options: Options, found: dict[Any, Array]) -> str:
    """All terms but L_0 by t*, variance and number of calls."""
    lines = [f"| t* | variance | {' | '.join(map(str, options.calls))} |"]
    lines.append("| --- " * (2 + len(options.calls)) + "|")
    for end in options.ends:
        for variance, name in VARIANCES.items():
            sums = [found[variance, end, k][:, 1:].sum(axis=1) for k in options.calls]
            cells = [mean_and_error(values) for values in sums]
            lines.append(f"| {end} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> str:
    """Measure, write, print."""
    options = trial(options) if options.dry else options
    model = measured_model(options)
    whole = wholes(model, options)
    visited = {t for plan in whole.values() for t in plan.trajectory}
    found = terms(model, options, whole | paths(model, options, visited))
    error = model.denoising_error
    count = len(next(iter(found.values())))
    text = (
        f"{'a trial' if options.dry else options.model}: the error of {error.images:,} training "
        f"images at {len(error.spectral.timesteps)} timesteps, {count:,} test images; bits/dim ± "
        f"one standard error\n\n{bound_table(model, options, found)}\n\nThe path alone, from noise "
        f"to x_t*, by the network calls up to and with that at t*:\n\n"
        f"{path_table(options, found)}\n"
    )
    write_text(options.out, text)
    print(text, end="")
    return text


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:]))
