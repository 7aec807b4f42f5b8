"""Speed of the whole bound over the held-out digits against a plain script, as ratios in one run.

    python benchmarks/evaluation.py runs/demo [--steps 1000] [--plain-images 3] [--rounds 3]

The plain script goes through the timesteps one by one: q(x_t | x_0), one network call, one term of
Eq. 5. It does so for one image at a time, or for all images in one batch. Both get the noise of
our own evaluation, drawn before the clock starts, so the totals must agree image by image but for
float arithmetic, and drawing noise is on our bill alone. One image at a time is timed on a few
images only and told as images a second. The variants take turns; the table shows medians.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from ddpm import Ddpm, GaussianDiffusion, Plan, load
from ddpm.data.digits import digits
from ddpm.diffusion.bound_terms import discretized_gaussian_log_likelihood, normal_kl
from ddpm.runtime.randomness import Randomness

SAME = 1e-3  # bits/dim by which an image's total may differ through the order of float sums


@dataclass(frozen=True)
class Options:
    """What to time."""

    run: tyro.conf.Positional[Path]
    """A run of the digits preset."""
    steps: int = 1000
    """Timesteps of the chain."""
    images: int | None = None
    """Held-out digits; all by default."""
    plain_images: int = 3
    """Digits that the plain script takes one at a time."""
    batch_size: int = 256
    """Images in one network call of ours."""
    rounds: int = 3
    """How often each variant is timed."""


def our_noise(diffusion: GaussianDiffusion, images: Tensor) -> list[Tensor]:
    """The noise that `Ddpm.bound` draws for these images at each step."""
    source, index = Randomness(0, "bound"), torch.arange(len(images))
    shape = tuple(images.shape[1:])
    return [source.normal(index, shape, int(t)) for t in diffusion.schedule.timesteps]


def plain(
    model: Ddpm, diffusion: GaussianDiffusion, images: Tensor, noise: list[Tensor]
) -> np.ndarray:
    """bits/dim of each image of one batch, by a loop over t."""
    denoiser, levels = model.denoiser(), model.format.levels
    with torch.inference_mode():
        x_start = model.format.to_unit(images)
        total = torch.zeros(len(images), dtype=torch.float64)
        for i in range(diffusion.num_timesteps):
            t = torch.full((len(images),), i)
            x_t = diffusion.q_sample(x_start, t, noise[i])
            p = diffusion.p_mean_variance(denoiser, x_t, t)
            if i > 0:
                mean, _, log_variance = diffusion.q_posterior_mean_variance(x_start, x_t, t)
                nats = normal_kl(mean, log_variance, p.mean, p.log_variance)
            else:
                nats = -discretized_gaussian_log_likelihood(
                    x_start, p.mean, 0.5 * p.log_variance, levels
                )
            total += nats.flatten(1).mean(dim=1) / math.log(2)
        t = torch.full((len(images),), diffusion.num_timesteps - 1)
        mean, _, log_variance = diffusion.q_mean_variance(x_start, t)
        zero = torch.zeros_like(mean)
        total += normal_kl(mean, log_variance, zero, zero).flatten(1).mean(dim=1) / math.log(2)
    return total.numpy()


def one_by_one(
    model: Ddpm, diffusion: GaussianDiffusion, images: Tensor, noise: list[Tensor]
) -> np.ndarray:
    """The same with a batch of one for every image."""
    each = [
        plain(model, diffusion, images[i : i + 1], [step[i : i + 1] for step in noise])
        for i in range(len(images))
    ]
    return np.concatenate(each)


def main(options: Options) -> None:
    """Time every variant in turn, compare the totals and print the table."""
    model, images = load(options.run, "cpu"), digits("test").images[: options.images]
    plan, few = Plan(options.steps), images[: options.plain_images]
    diffusion = model.chain(plan)
    noise = our_noise(diffusion, images)
    few_noise = [step[: len(few)] for step in noise]

    def ours() -> np.ndarray:
        return model.bound(images, plan=plan, batch_size=options.batch_size).total

    variants: dict[str, Callable[[], np.ndarray]] = {
        "loop over t, one image at a time": lambda: one_by_one(model, diffusion, few, few_noise),
        "loop over t, all images in one batch": lambda: plain(model, diffusion, images, noise),
        "`model.bound`": ours,
    }
    totals: dict[str, np.ndarray] = {}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, call in variants.items():
            begun = time.perf_counter()
            totals[name] = call()
            times[name].append((time.perf_counter() - begun) / len(totals[name]))
    own = totals["`model.bound`"]
    rate = {name: 1 / statistics.median(values) for name, values in times.items()}
    base = next(iter(variants))
    print(
        f"{options.steps} steps, {len(images)} digits, {own.mean():.4f} bits/dim, {options.rounds} "
        f"rounds, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print("| variant | images timed | images/s | ratio | largest difference, bits/dim |")
    print("| --- | --- | --- | --- | --- |")
    for name, value in totals.items():
        difference = float(np.abs(value - own[: len(value)]).max())
        shown = f"{rate[name]:.3g} | {rate[name] / rate[base]:.1f}"
        print(f"| {name} | {len(value)} | {shown} | {difference:.1e} |")
        if difference > SAME:
            raise SystemExit(f"{name}: the totals differ by more than rounding")


if __name__ == "__main__":
    main(tyro.cli(Options))
