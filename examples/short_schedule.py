"""What a schedule costs that ends before the image is noise: L_T, the bound, and the samples
(Eq. 5 of the paper; docs/likelihood.md).

    python examples/short_schedule.py RUN IMAGES --out FILE.png

The chain of a trained model is cut off after some of its steps. What is left is the bound of a
shorter schedule, whose receiver, and whose sampler, begins with N(0, I) although x_T is not that.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import ddpm

SHOWN, COUNT = (1.0, 0.5, 0.25, 0.1), 6  # of the whole chain; samples of each


def prior_terms(diffusion, x_start):
    """[T], L_T in bits/dim of the chain that is cut off after 1, 2, ..., T steps.

    Args:
        diffusion: the whole chain.
        x_start: [n, c, h, w] in [-1, 1].
    """
    ends = range(1, diffusion.num_timesteps + 1)
    cut = (diffusion.respace(np.arange(end)) for end in ends)
    return np.array([float(ddpm.prior_bpd(chain, x_start.double()).mean()) for chain in cut])


def cut_bounds(bound, prior):
    """[T], bits/dim of the same chains: L_T, and the terms of the steps that are left."""
    return prior + np.cumsum(bound.terms)


def draw(model, steps, count=COUNT, seed=0):
    """Samples that begin with N(0, I) at step `steps`, as if the schedule ended there."""
    noise = model.noise(torch.arange(count), seed)
    parts = model.diffusion, model.denoiser(), noise(steps), noise
    return model.format.from_unit(ddpm.Ancestral()(*parts, start=steps - 1))


def picture(model, prior, bounds, samples):
    """L_T and the bound against the length of the chain, and samples of some lengths."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    first, second = left.subplots(1, 2)
    rows = right.subplots(len(samples), 1)
    steps = np.arange(1, len(prior) + 1)
    first.plot(steps, prior)
    first.axhline(1e-5, color="grey", linestyle=":", label="the paper's 1e-5")
    first.set(yscale="log", ylabel="$L_T$ (bits/dim)", xlabel="steps of the chain, T")
    first.legend()
    second.plot(steps, bounds, label="the bound")
    second.plot(steps, bounds - prior, "--", label="without $L_T$")
    second.set(ylabel="bits/dim", xlabel="steps of the chain, T", ylim=(0, None))
    second.legend()
    for axes in (first, second):
        axes.grid(alpha=0.3)
    for axes, (end, images) in zip(rows, samples.items(), strict=True):
        axes.imshow(np.concatenate(list(model.format.to_display(images)), axis=1))
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(f"T = {end}", rotation=0, ha="right", va="center", labelpad=4)
    return figure


def main(argv=None):
    """Measure, draw, and print what the picture shows."""
    parser = argparse.ArgumentParser(description="A chain that ends before the image is noise.")
    parser.add_argument("run", help="a run's folder, a checkpoint or a model of `ddpm models`")
    parser.add_argument("images", help="images that it was not trained on, or digits")
    parser.add_argument("--out", type=Path, default=Path("short-schedule.png"))
    parser.add_argument("--count", type=int, default=64, help="images to measure on")
    args = parser.parse_args(argv)
    model = ddpm.load(args.run, precision="fp32")
    shape = model.format
    source = ddpm.open_data(args.images, "test", image_size=shape.height, channels=shape.channels)
    images = source[torch.arange(args.count)]
    prior = prior_terms(model.diffusion, shape.to_unit(images))
    bounds = cut_bounds(model.bound(images), prior)
    samples = {}
    for share in SHOWN:
        end = round(share * len(prior))
        samples[end] = draw(model, end)
        print(f"T = {end}: L_T {prior[end - 1]:.2g}, the bound {bounds[end - 1]:.3f} bits/dim")
    mark = ddpm.provenance.Provenance.of(model, args.run, ()).chunks()  # that it is synthetic
    picture(model, prior, bounds, samples).savefig(args.out, dpi=120, metadata=mark)


if __name__ == "__main__":
    main()
