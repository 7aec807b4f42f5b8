"""Curves of a training run, drawn from its stats.jsonl."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from ddpm.errors import check
from ddpm.figures.grid import to_picture
from ddpm.figures.style import styled


@styled
def loss_curve(stats: list[dict[str, Any]]) -> Image.Image:
    """The training loss against the step: as measured, and smoothed over a twentieth of the run."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    _draw_loss(axes, stats)
    axes.set_xlabel("step")
    return to_picture(figure)


@styled
def run_curves(stats: list[dict[str, Any]]) -> Image.Image:
    """Loss, held-out bits/dim where estimated, learning rate and images/s against the step.

    Args:
        stats: lines of stats.jsonl; any key but `step` may be missing from any of them.
    """
    labels = {"lr": "learning rate", "images_per_second": "images/s"}
    if _points(stats, "bits_per_dim")[0]:
        labels = {"bits_per_dim": "held-out bits/dim", **labels}
    figure = Figure(figsize=(7, 3 + 2 * len(labels)), layout="constrained")
    panels = figure.subplots(1 + len(labels), 1, sharex=True, height_ratios=[2] + [1] * len(labels))
    _draw_loss(panels[0], stats)
    for axes, (key, label) in zip(panels[1:], labels.items(), strict=True):
        axes.plot(*_points(stats, key), marker="." if key == "bits_per_dim" else "")
        axes.set(ylabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    figure.align_ylabels(panels)
    return to_picture(figure)


def _points(stats: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one curve, from the lines that have it."""
    known = [line for line in stats if line.get(key) is not None]
    return [line["step"] for line in known], [line[key] for line in known]


def _draw_loss(axes: Any, stats: list[dict[str, Any]]) -> None:
    """The loss, measured and smoothed, on a logarithmic axis."""
    steps, loss = _points(stats, "loss")
    check(len(loss) > 0, "there is no loss to draw: stats.jsonl is empty")
    width = max(1, len(loss) // 20)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    axes.plot(steps, loss, linewidth=0.7, alpha=0.4, label="measured")
    axes.plot(steps[width - 1 :], smooth, label="smoothed")
    axes.set(ylabel="training loss", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
