"""What a network learns from as many images, under other recipes than the paper's.

    python benchmarks/training_recipes.py [--steps 800] [--seeds 0 1 2] [--out recipes.jsonl]

Trains the digits preset anew for every recipe and seed, and prints a table: bits/dim of the
held-out digits with 50 optimal steps and the analytic variance; the Frechet distance of drawn
digits to them (pixels in [-1, 1]) and the share recognised, with 50 calls; means and standard
errors over the seeds. All see as many images; `--time` measures what an image costs, the recipes
taking turns on a quiet machine. What is measured is kept in --out, one line a run, and not measured
again.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

from ddpm import Config, Plan, get_preset
from ddpm.data.digits import digits
from ddpm.data.order import DataOrder
from ddpm.diffusion.losses import training_loss
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.training.muon import Muon
from ddpm.training.optimizers import Optimizers
from ddpm.training.state import TrainingState
from ddpm.training.step import Loss, TrainingStep

PAPER: dict[str, Any] = {"prediction_type": "epsilon", "optimizer": "adam"}
BOTH = {"prediction_type": "v_prediction", "optimizer": "muon", "stratified_time": True}


@dataclass(frozen=True)
class Recipe:
    """What differs from the digits preset of the paper's recipe."""

    settings: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[], Loss] | None = None
    change: Callable[[TrainingState], None] | None = None


class PerTime:
    """L_simple divided by its own running mean at each of 20 stretches of t: every noise level is a
    task of equal weight."""

    def __init__(self) -> None:
        self.mean = torch.ones(20)

    def __call__(
        self, diffusion: Any, denoiser: Any, x_start: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        losses = training_loss(diffusion, denoiser, x_start, t, noise)
        place = t * len(self.mean) // diffusion.num_timesteps
        for i, loss in zip(place.tolist(), losses.tolist(), strict=True):
            self.mean[i] += 0.02 * (loss - self.mean[i])
        return losses / self.mean[place] * float(self.mean.mean())


class Soap(torch.optim.Optimizer):
    """Adam in the eigenvectors of Shampoo's preconditioner (Vyas et al. 2024).

    Args:
        weights: of at least two dimensions.
        lr: learning rate.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every weight; the eigenvectors are found again every tenth time."""
        for group in self.param_groups:
            for weight in group["params"]:
                self._move(weight, group["lr"])

    def _move(self, weight: Tensor, lr: float) -> None:
        gradient, state = weight.grad.flatten(1), self.state[weight]
        if not state:
            rows, columns = gradient.shape
            state |= {
                "step": 0,
                "left": torch.zeros(rows, rows),
                "right": torch.zeros(columns, columns),
            }
            state |= {"mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
        state["step"] += 1
        state["left"].lerp_(gradient @ gradient.mT, 0.05)
        state["right"].lerp_(gradient.mT @ gradient, 0.05)
        if state["step"] % 10 == 1:
            bases = [torch.linalg.eigh(state[side])[1] for side in ("left", "right")]
            if "bases" in state:  # the squares go along, as in the authors' code
                turned = [new.mT @ old for new, old in zip(bases, state["bases"], strict=True)]
                state["square"] = turned[0] ** 2 @ state["square"] @ (turned[1] ** 2).mT
            state["bases"] = bases
        left, right = state["bases"]
        state["mean"].lerp_(gradient, 0.05)
        turned_gradient, turned_mean = (left.mT @ m @ right for m in (gradient, state["mean"]))
        state["square"].lerp_(turned_gradient**2, 0.05)
        size = 1 - 0.95 ** state["step"]  # of both means, which begin at 0
        step = (turned_mean / size) / ((state["square"] / size).sqrt() + 1e-8)
        weight.sub_((left @ step @ right.mT).reshape(weight.shape), alpha=lr)


def soap(state: TrainingState) -> None:
    """Put SOAP in Muon's place."""
    for i, (optimizer, _) in enumerate(state.optimizers.parts):
        if isinstance(optimizer, Muon):
            weights = optimizer.param_groups[0]["params"]
            state.optimizers.parts[i] = (Soap(weights, optimizer.param_groups[0]["lr"]), ())


def slow_edges(state: TrainingState) -> None:
    """A third of the rate for the layers that see the image or make one."""
    network = state.network
    edges = {*network.conv_in.parameters(), *network.conv_out.parameters()}
    whole = state.optimizers

    class Slower(Optimizers):
        def step(self, rate: float) -> None:
            before = {weight: weight.detach().clone() for weight in edges}
            whole.step(rate)
            with torch.no_grad():
                for weight, old in before.items():
                    weight.copy_(old + (weight - old) / 3)

        def __init__(self) -> None:
            self.parts = whole.parts

    state.optimizers = Slower()


RECIPES: dict[str, Recipe] = {
    "the paper's": Recipe(),
    "v": Recipe({"prediction_type": "v_prediction"}),
    "stratified t": Recipe({"stratified_time": True}),
    "Muon": Recipe({"optimizer": "muon"}),
    "Muon, stratified t": Recipe({"optimizer": "muon", "stratified_time": True}),
    "Muon, stratified t, rate x 2": Recipe(
        {"optimizer": "muon", "stratified_time": True, "lr": 4e-3}
    ),
    "v, Muon, stratified t": Recipe(BOTH),
    "v, Muon, stratified t, rate x 0.5": Recipe({**BOTH, "lr": 1e-3}),
    "v, Muon, stratified t, rate x 2": Recipe({**BOTH, "lr": 4e-3}),
    "v, Muon, stratified t, half of them by the bound": Recipe({**BOTH, "time_sampling": "both"}),
    "v, Muon, stratified t, every noise level a task": Recipe(BOTH, loss=PerTime),
    "v, Muon, stratified t, slow edges": Recipe(BOTH, change=slow_edges),
    "v, Muon, stratified t, EMA 0.98": Recipe({**BOTH, "ema_decay": 0.98}),
    "v, Muon, stratified t, EMA 0.999": Recipe({**BOTH, "ema_decay": 0.999}),
    "v, Muon, stratified t, batch 256": Recipe({**BOTH, "batch_size": 256, "lr": 2.8e-3}),
    "v, SOAP, stratified t": Recipe(BOTH, change=soap),
    "v, SOAP, stratified t, rate x 0.5": Recipe({**BOTH, "lr": 1e-3}, change=soap),
    "v, Muon, stratified t, two networks, switch at 200": Recipe({**BOTH, "switch": 200}),
}


@dataclass(frozen=True)
class Options:
    """What to compare."""

    steps: int = 800
    """Steps of 128 images of each run, or as many images in other batches."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    recipes: tuple[str, ...] = tuple(RECIPES)
    """Which."""
    samples: int = 1000
    """Digits drawn of each."""
    precision: str = "fp32"
    """Of the network while it is trained."""
    out: Path = Path("recipes.jsonl")
    """What was measured so far."""
    time: bool = False
    """Measure the time of a step instead."""


def configured(recipe: Recipe, options: Options, seed: int) -> Config:
    """The settings of a run."""
    base, given = get_preset("digits"), {**PAPER, **recipe.settings}
    batch = given.get("batch_size", 128)
    prediction, switch = given.pop("prediction_type"), given.pop("switch", 0)
    training = {
        "lr": 2e-3,
        "stratified_time": False,
        "time_sampling": "uniform",
        "steps": options.steps * 128 // batch,
        "warmup": options.steps // 12,
        "seed": seed,
        "precision": options.precision,
        **given,
    }
    return replace(
        base,
        network=replace(base.network, switch=switch),
        diffusion=replace(base.diffusion, prediction_type=prediction),
        training=replace(base.training, **training),
    )


def begun(recipe: Recipe, config: Config) -> TrainingStep:
    """A run before its first step."""
    images = digits("train")
    state = TrainingState(config, images.format, torch.device("cpu"))
    if recipe.change is not None:
        recipe.change(state)
    return TrainingStep(state, None if recipe.loss is None else recipe.loss())


def trained(recipe: Recipe, config: Config) -> dict[str, float]:
    """Train and measure."""
    images, held_out = digits("train"), digits("test")
    step = begun(recipe, config)
    order = DataOrder(len(images), config.training.batch_size, config.training.seed)
    for number in range(config.training.steps):
        step(images[order[number]])
    model = step.state.model
    model.denoising_error = model.measure(images[torch.arange(300)], timesteps=40)
    plan = Plan(50, "optimal", "analytic")
    drawn = model.sample(OPTIONS.samples, plan=plan, batch_size=250)
    return {
        "bits": model.bits_per_dim(held_out.images, plan=plan),
        "frechet": pixel_frechet_distance(drawn, held_out.images, model.format),
        "recognised": DigitRecogniser(images).fraction(drawn),
    }


def time_steps(options: Options) -> None:
    """Medians of 15 steps of each recipe in turns."""
    images = digits("train")
    steps = {n: begun(RECIPES[n], configured(RECIPES[n], options, 0)) for n in options.recipes}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(18):
        for name, step in steps.items():
            batch = images[torch.arange(step.training.batch_size)]
            begin = time.perf_counter()
            step(batch)
            taken[name].append((time.perf_counter() - begin) / len(batch))
    first = statistics.median(taken[options.recipes[0]][3:])
    print("| recipe | ms an image | ratio |\n| --- | --- | --- |")
    for name, values in taken.items():
        found = statistics.median(values[3:])
        print(f"| {name} | {1e3 * found:.3f} | {found / first:.2f} |")


def table(lines: list[dict[str, Any]], options: Options) -> None:
    """Means and standard errors over the seeds."""
    print("| recipe | bits/dim | Frechet distance | recognised | seeds |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.recipes:
        runs = [line for line in lines if line["recipe"] == name]
        cells = []
        for key in ("bits", "frechet", "recognised"):
            values = [run[key] for run in runs]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
            mean = f"{statistics.fmean(values):.3f}" if values else ""
            cells.append(mean + (f" ± {error:.3f}" if error is not None else ""))
        print(f"| {name} | {' | '.join(cells)} | {len(runs)} |")


def main(options: Options) -> None:
    """Train what has not been trained yet, and print all of it."""
    lines = []
    if options.out.exists():
        lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    lines = [line for line in lines if line["steps"] == options.steps]
    known = {(line["recipe"], line["seed"]) for line in lines}
    for seed in options.seeds:
        for name in options.recipes:
            if (name, seed) in known:
                continue
            begin = time.perf_counter()
            found = trained(RECIPES[name], configured(RECIPES[name], options, seed))
            line = {"recipe": name, "seed": seed, "steps": options.steps, **found}
            line["seconds"] = time.perf_counter() - begin
            print(line, flush=True)
            lines.append(line)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    table(lines, options)


if __name__ == "__main__":
    OPTIONS = tyro.cli(Options)
    if OPTIONS.time:
        time_steps(OPTIONS)
    else:
        main(OPTIONS)
