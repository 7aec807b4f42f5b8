"""Digits of an asked class against guidance: how many are recognised as it, and how varied.

    ddpm train digits --network.classes 10 --out runs/classes
    python benchmarks/guidance.py runs/classes [--each 50] [--out guidance.png]

For each guidance it draws the same numbers of every class and prints the share that a classifier
takes for the asked class, the share that it takes for it with more than 0.9, and the Frechet
distance of the pixels to the held-out digits; and bits/dim of these without and with their class.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from ddpm import Ddpm, Plan, load
from ddpm.data.digits import digits
from ddpm.data.exact_files import save_png
from ddpm.evaluation import DigitRecogniser, pixel_frechet_distance
from ddpm.evaluation.digit_recogniser import CERTAIN
from ddpm.figures.grid import image_grid

SHOWN = 8  # images of each class in the picture


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """A run of `ddpm train digits --network.classes 10`."""
    each: int = 50
    """Images of every class."""
    steps: int = 50
    """Network calls an image, twice as many evaluations where there is guidance."""
    guidance: tuple[float, ...] = (0.0, 1.0, 1.5, 2.0, 4.0)
    """The s of u + s (c - u)."""
    out: Path | None = None
    """A picture: a row for each class at the last guidance but one."""


def draw(model: Ddpm, options: Options, guidance: float) -> torch.Tensor:
    """Images of all classes, one class after another, each from other noise."""
    return torch.cat(
        [
            model.given(label, guidance).sample(
                options.each, seed=label, steps=options.steps, batch_size=256
            )
            for label in range(len(model.class_names))
        ]
    )


def main(options: Options) -> None:
    """Measure every guidance."""
    model, held_out = load(options.run), digits("test")
    classifier = DigitRecogniser(digits("train")).classifier
    pixels = held_out.images.flatten(1).numpy()
    accuracy = (classifier.predict_proba(pixels).argmax(1) == held_out.labels.numpy()).mean()
    print(f"the classifier knows {accuracy:.3f} of the held-out digits\n")
    print("| guidance s | taken for the asked class | with more than 0.9 | Frechet distance |")
    print("| --- | --- | --- | --- |")
    asked = np.repeat(np.arange(len(model.class_names)), options.each)
    for guidance in options.guidance:
        images = draw(model, options, guidance)
        found = classifier.predict_proba(images.flatten(1).numpy())
        of_asked = found[np.arange(len(asked)), asked]
        taken, certain = (found.argmax(1) == asked).mean(), (of_asked > CERTAIN).mean()
        distance = pixel_frechet_distance(images, held_out.images, model.format)
        print(f"| {guidance:g} | {taken:.3f} | {certain:.3f} | {distance:.2f} |", flush=True)
        if options.out is not None and guidance == options.guidance[-2]:
            rows = images.unflatten(0, (-1, options.each))[:, :SHOWN].flatten(0, 1)
            save_png(image_grid(rows, model.format, columns=SHOWN), options.out)
    plan = Plan(options.steps, "optimal", "analytic")
    print(f"\nbits/dim, null class: {model.bits_per_dim(held_out, plan=plan):.3f}")
    train, known = digits("train"), []
    for label in range(len(model.class_names)):
        one = model.given(label)
        one.measure(train.images[train.labels == label])  # the variance is that of the class, too
        known.append(one.bound(held_out.images[held_out.labels == label], plan=plan).total)
    print(f"bits/dim, each image's own class: {float(np.concatenate(known).mean()):.3f}")


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:]))
