"""Plots of the bound: rate and distortion (Figure 5), and bits/dim against the number of steps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ddpm.figures.grid import to_picture
from ddpm.figures.style import styled
from ddpm.likelihood.bound import Bound


@styled
def rate_distortion_plot(bound: Bound) -> Image.Image:
    """Distortion and rate against reverse steps, and against each other."""
    curve = bound.rate_distortion()
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    first.plot(curve["reverse_step"], curve["rmse"])
    first.set(xlabel="reverse process steps", ylabel="distortion (RMSE, 0..255)")
    second.plot(curve["reverse_step"], curve["rate"])
    second.set(xlabel="reverse process steps", ylabel="rate (bits/dim)")
    third.plot(curve["rate"], curve["rmse"])
    third.set(xlabel="rate (bits/dim)", ylabel="distortion (RMSE, 0..255)")
    for axes in (first, second, third):
        axes.grid(alpha=0.3)
    return to_picture(figure)


@styled
def steps_plot(
    measured: dict[str, dict[int, float]], baselines: dict[str, float] | None = None
) -> Image.Image:
    """bits/dim against the number of network calls, one line a trajectory.

    Args:
        measured: trajectory -> number of calls -> bits/dim.
        baselines: horizontal lines by name.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, points in measured.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    for i, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(value, color=f"C{i + len(measured)}", linestyle=":", label=name)
    calls = np.unique([k for points in measured.values() for k in points])
    axes.set(xlabel="network calls", ylabel="bits/dim", xscale="log")
    axes.set_xticks(calls, [str(k) for k in calls])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return to_picture(figure)
