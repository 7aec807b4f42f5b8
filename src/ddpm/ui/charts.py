"""Small charts as SVG: curves and histograms that need no script and stay sharp."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 30, 14, 58
# Okabe and Ito's colours, which colour-blind people tell apart, and dashes for those who see none.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")


@dataclass(frozen=True)
class Curve:
    """Points joined by a line, x rising."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axes:
    """From numbers to places in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool = False

    def across(self, value: float) -> float:
        """Where an x lies."""
        low, high = map(math.log10, self.x) if self.log else self.x
        value = math.log10(value) if self.log else value
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Where a y lies."""
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / about))
    step = next(step * k for k in (1, 2, 5, 10) if span / (step * k) <= about)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def curves(
    lines: Sequence[Curve],
    xlabel: str,
    ylabel: str,
    at: float | None = None,
    about: str = "",
    log: bool = False,
) -> str:
    """Curves with their names, and a vertical line at a place on the x axis.

    Args:
        lines: at least one; what is not finite is left out.
        xlabel, ylabel: with units.
        at: where the vertical line is.
        about: what it shows, for those who do not see it.
        log: whether equal ratios of x, all of them at least 1, are equally far apart.
    """
    points = [
        [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)] for line in lines
    ]
    flat = [point for line in points for point in line] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in flat], [y for _, y in flat]
    axes = Axes((float(log), max(xs)), (min(ys), max(ys) + 0.05 * (max(ys) - min(ys) or 1)), log)
    parts, names = [], []
    for place, (line, found) in enumerate(zip(lines, points, strict=True)):
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        path = " ".join(f"{axes.across(x):.1f},{axes.down(y):.1f}" for x, y in found)
        style = f'stroke="{colour}" stroke-dasharray="{dash}" stroke-width="2.2"'
        parts.append(f'<polyline points="{path}" fill="none" {style}/>')
        key = f'<svg width="34" height="10" aria-hidden="true"><path d="M0 5H34" {style}/></svg>'
        names.append(f"<li>{key}{html.escape(line.name)}</li>" if len(lines) > 1 else "")
    if at is not None:
        x = axes.across(min(at, axes.x[1]))
        parts.append(f'<path class="place" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    drawing = _framed(axes, "".join(parts), xlabel, ylabel, about)
    return f'<div class="chart">{drawing}<ul class="key">{"".join(names)}</ul></div>'


def histogram(
    values: Sequence[float], xlabel: str, ylabel: str, at: float | None = None, about: str = ""
) -> str:
    """How often values occur, and a vertical line at one of them; see `curves`."""
    everything = [*values, *([] if at is None else [at])]
    counts, edges = np.histogram(values, bins=20, range=(min(everything), max(everything)))
    axes = Axes((float(edges[0]), float(edges[-1])), (0, float(max(counts)) * 1.05))
    parts = []
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        left, right, top = axes.across(low), axes.across(high), axes.down(float(count))
        parts.append(
            f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(right - left - 1, 1):.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}" fill="{COLOURS[0]}"/>'
        )
    if at is not None:
        parts.append(f'<path class="place" d="M{axes.across(at):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    return f'<div class="chart">{_framed(axes, "".join(parts), xlabel, ylabel, about)}</div>'


def _framed(axes: Axes, inside: str, xlabel: str, ylabel: str, about: str) -> str:
    """What is drawn, with axes, ticks and their names."""
    marks = []
    powers = [10.0**k for k in range(10) if axes.x[0] <= 10**k <= axes.x[1]]
    for x in powers if axes.log else ticks(*axes.x):
        place = axes.across(x)
        marks.append(f'<path class="grid" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        marks.append(
            f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{x:,g}</text>'
        )
    for y in ticks(*axes.y):
        place = axes.down(y)
        marks.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{y:,g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    side = (TOP + HEIGHT - BOTTOM) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(about)}">'
        f"{''.join(marks)}{inside}"
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(xlabel)}</text>'
        f'<text transform="translate(14 {side}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(ylabel)}</text></svg>"
    )
