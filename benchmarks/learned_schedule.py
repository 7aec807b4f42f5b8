"""bits/dim of digits with learned forward variances, beside linear and cosine ones.

    python benchmarks/learned_schedule.py [--steps 500] [--seeds 0 1 2] [--out learned.jsonl]

Trains a small network anew for every schedule and seed: a learned schedule with T steps for each T,
on the bound, and linear and cosine ones of 1,000 steps, whose chains of T steps are the same
networks respaced, evenly and to the optimal timesteps. Half the timesteps that these two train on
are drawn by the bound and half evenly; linear also once with all drawn by the bound. Measures the
bound of the first held-out digits with the analytic variance, or the learned one, and prints a
table: means and standard errors over the seeds. What is measured is kept in --out, one line a run.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from ddpm import Config, Ddpm, Plan, UNetConfig, get_preset
from ddpm.data.digits import digits
from ddpm.data.order import DataOrder
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep

WHOLE = 1000
# By the bound's weights alone 97% of cosine's draws would be of its last step, over which the
# signal-to-noise ratio falls a thousandfold; so half the draws of both are even, and what they
# minimise is half the bound and half L_simple.
FIXED = {"loss": "simple", "time_sampling": "both"}
LEARNED = {"loss": "vlb", "time_sampling": "uniform"}  # which draws by the weights itself


@dataclass(frozen=True)
class Options:
    """What to measure."""

    steps: int = 500
    """Optimiser steps of each run, 128 digits each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    lengths: tuple[int, ...] = (WHOLE, 100, 20)
    """T."""
    images: int = 96
    """Held-out digits."""
    ch: int = 16
    """Channels of the network's first level."""
    out: Path = Path("learned.jsonl")
    """What was measured so far."""


def variants(options: Options) -> list[dict[str, Any]]:
    """Settings of the diffusion of every run, and how t is drawn if that is not the usual way."""
    fixed: list[dict[str, Any]] = [
        {"schedule": name, "timesteps": WHOLE} for name in ("linear", "cosine")
    ]
    fixed.append({**fixed[0], "time_sampling": "bound"})
    learned = [{"schedule": "learned", "timesteps": length} for length in options.lengths]
    learned.append({**learned[-1], "ends": "fixed"})
    few = [{**kind, "variance_type": "learned_range"} for kind in learned[1:-1]]
    return [*fixed, *learned, *few]


def configured(options: Options, variant: dict[str, Any], seed: int) -> Config:
    """The settings of a run."""
    diffusion = {name: value for name, value in variant.items() if name != "time_sampling"}
    drawn = {name: value for name, value in variant.items() if name not in diffusion}
    base = get_preset("digits")
    assert isinstance(base.network, UNetConfig)
    training: dict[str, Any] = {
        **(LEARNED if diffusion["schedule"] == "learned" else FIXED | drawn),
        "steps": options.steps,
        "warmup": options.steps // 12,
        "seed": seed,
        "precision": "fp32",
    }
    return replace(
        base,
        network=replace(base.network, ch=options.ch),
        diffusion=replace(base.diffusion, **{"variance_type": "fixed_small", **diffusion}),
        training=replace(base.training, **training),
    )


def trained(config: Config) -> Ddpm:
    """A model, with its denoising error measured."""
    images = digits("train")
    step = TrainingStep(TrainingState(config, images.format, torch.device("cpu")))
    order = DataOrder(len(images), config.training.batch_size, config.training.seed)
    for number in range(config.training.steps):
        step(images[order[number]])
    model = step.state.model
    count = min(130, model.diffusion.num_timesteps)
    model.measure(images[torch.arange(300)], timesteps=count)
    return model


def measured(model: Ddpm, options: Options) -> dict[str, float]:
    """Bits/dim under every chain of the model, by a name that the table has."""
    total = model.diffusion.num_timesteps
    own = model.diffusion.learns_variance  # which has no use for another
    plans = {f"{total}": Plan() if own else Plan(variance="analytic")}
    if total == WHOLE:
        for length in options.lengths:
            if length < WHOLE:
                plans[f"{length} even"] = Plan(length, "even", "analytic")
                plans[f"{length} optimal"] = Plan(length, "optimal", "analytic")
    images = digits("test").images[: options.images]
    return {name: model.bits_per_dim(images, plan=plan) for name, plan in plans.items()}


def table(lines: list[dict[str, Any]]) -> str:
    """Means and standard errors over the seeds, in Markdown."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        for name, bits in line["bits"].items():
            found.setdefault((line["run"], name), []).append(bits)
    rows = ["| trained with | steps | bits/dim | seeds |", "| --- | --- | --- | --- |"]
    for (run, name), values in found.items():
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        rows.append(
            f"| {run} | {name} | {statistics.fmean(values):.3f} ± {error:.3f} | {len(values)} |"
        )
    return "\n".join(rows)


def main(options: Options) -> None:
    """Train what has not been trained yet, and print all of it."""
    lines: list[dict[str, Any]] = []
    if options.out.exists():
        lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    lines = [line for line in lines if (line["steps"], line["ch"]) == (options.steps, options.ch)]
    known = {(line["run"], line["seed"]) for line in lines}
    for seed in options.seeds:
        for variant in variants(options):
            run = " ".join(str(value) for value in variant.values())
            if (run, seed) in known:
                continue
            begin = time.perf_counter()
            model = trained(configured(options, variant, seed))
            abar = model.diffusion.schedule.alphas_cumprod
            line = {
                "run": run,
                "seed": seed,
                "steps": options.steps,
                "ch": options.ch,
                "bits": measured(model, options),
                "abar": [abar[0], abar[len(abar) // 2], abar[-1]],
                "seconds": time.perf_counter() - begin,
            }
            print(line, flush=True)
            lines.append(line)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main(tyro.cli(Options))
