"""Curves of a training run, drawn from its stats.jsonl."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ddpm.errors import check


def to_picture(figure: Figure) -> Image.Image:
    """Render a matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return Image.open(buffer).convert("RGB")


def loss_curve(stats: list[dict[str, Any]]) -> Image.Image:
    """The training loss against the step: as measured, and smoothed over a twentieth of the run."""
    check(len(stats) > 0, "there is no loss to draw: stats.jsonl is empty")
    steps = np.array([line["step"] for line in stats])
    loss = np.array([line["loss"] for line in stats])
    width = max(1, len(loss) // 20)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, loss, linewidth=0.7, alpha=0.4, label="measured")
    axes.plot(steps[width - 1 :], smooth, label="smoothed")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return to_picture(figure)
