"""Sample quality of a digits run against the number of network calls, for every sampler.

    python benchmarks/sample_quality.py runs/demo [--samples 1000] [--out docs/sample-quality.png]

Prints a table of the Frechet distance to the held-out digits (pixels in [-1, 1]) and of the share
recognised by a classifier, both as in the demo, and draws the first against the calls.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from ddpm import load
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.figures.grid import to_picture

SAMPLERS: dict[str, dict[str, str]] = {
    "ancestral, even": {},
    "ancestral, optimal + analytic": {"trajectory": "optimal", "variance": "analytic"},
    "ancestral, quadratic + analytic": {"trajectory": "quadratic", "variance": "analytic"},
    "DDIM, even": {"sampler": "ddim"},
    "DDIM, quadratic": {"sampler": "ddim", "trajectory": "quadratic"},
    "DPM-Solver++, even": {"sampler": "dpm-solver"},
    "DPM-Solver++, quadratic": {"sampler": "dpm-solver", "trajectory": "quadratic"},
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
    recogniser, levels = DigitRecogniser(digits("train")), model.facts.grey_levels
    print(f"{options.samples} samples; held-out share {recogniser.share(held_out):.3f}")
    print("| sampler | calls | Frechet distance | recognised |\n| --- | --- | --- | --- |")

    def measure(name: str, calls: int | None, arguments: dict[str, str]) -> float:
        images = model.sample(
            options.samples,
            steps=calls,
            batch_size=256,
            **arguments,  # type: ignore[arg-type]
        )
        distance = pixel_frechet_distance(images, held_out, levels)
        shown = calls or model.diffusion.num_timesteps
        print(f"| {name} | {shown} | {distance:.3f} | {recogniser.share(images):.3f} |")
        sys.stdout.flush()
        return distance

    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for name, arguments in SAMPLERS.items():
        distances = [measure(name, calls, arguments) for calls in options.calls]
        axes.plot(options.calls, distances, marker="o", label=name)
    if options.reference:
        whole = measure("ancestral, all steps", None, {})
        axes.axhline(whole, color="grey", linestyle=":", label="ancestral, all steps")
    axes.set(xlabel="network calls", ylabel="Frechet distance (pixels)", yscale="log")
    axes.set_xticks(options.calls)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_png(to_picture(figure), options.out)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(tyro.cli(Options))
