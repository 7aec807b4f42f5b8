"""Sample quality of a digits run against the number of network calls, for every sampler.

    python benchmarks/sample_quality.py runs/demo [--samples 1000] [--out docs/sample-quality.png]

Prints a table of the Frechet distance to the held-out digits (pixels in [-1, 1]) and of the share
recognised by a classifier, both as in the demo, and draws the first against the calls.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from ddpm import Ancestral, Ddim, DpmSolver, Plan, Sampler, load
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.figures.grid import to_picture

SAMPLERS: dict[str, tuple[Sampler, Plan]] = {  # the steps are filled in
    "ancestral, even, fixed_large": (Ancestral(), Plan(1, "even", "fixed_large")),
    "ancestral, optimal + analytic": (Ancestral(), Plan(1, "optimal", "analytic")),
    "ancestral, quadratic + analytic": (Ancestral(), Plan(1, "quadratic", "analytic")),
    "DDIM, even": (Ddim(), Plan(1, "even")),
    "DDIM, quadratic": (Ddim(), Plan(1, "quadratic")),
    "DPM-Solver++, even": (DpmSolver(), Plan(1, "even")),
    "DPM-Solver++, quadratic": (DpmSolver(), Plan(1, "quadratic")),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """A run of the digits preset."""
    samples: int = 1000
    """Images a measurement."""
    calls: tuple[int, ...] = (10, 20, 50)
    """Numbers of network calls."""
    reference: bool = True
    """Also measure ancestral sampling with all steps."""
    out: Path = Path("sample-quality.png")
    """The plot."""


def main(options: Options) -> None:
    """Measure every sampler at every number of calls."""
    model, held_out = load(options.run), digits("test").images
    recogniser = DigitRecogniser(digits("train"))
    print(f"{options.samples} samples; held-out share {recogniser.fraction(held_out):.3f}")
    print("| sampler | calls | Frechet distance | recognised |\n| --- | --- | --- | --- |")

    def measure(name: str, sampler: Sampler, plan: Plan) -> float:
        images = model.sample(options.samples, sampler=sampler, plan=plan, batch_size=256)
        distance = pixel_frechet_distance(images, held_out, model.format)
        shown = plan.steps or model.diffusion.num_timesteps
        print(f"| {name} | {shown} | {distance:.3f} | {recogniser.fraction(images):.3f} |")
        sys.stdout.flush()
        return distance

    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for name, (sampler, plan) in SAMPLERS.items():
        distances = [measure(name, sampler, replace(plan, steps=k)) for k in options.calls]
        axes.plot(options.calls, distances, marker="o", label=name)
    if options.reference:
        whole = measure("ancestral, all steps", Ancestral(), Plan())
        axes.axhline(whole, color="grey", linestyle=":", label="ancestral, all steps")
    axes.set(xlabel="network calls", ylabel="Frechet distance (pixels)", yscale="log")
    axes.set_xticks(options.calls)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_png(to_picture(figure), options.out)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(tyro.cli(Options))
