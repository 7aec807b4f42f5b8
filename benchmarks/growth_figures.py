"""Tables and figures of `growth.py`: time and memory along each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from growth_point import WORKS, Point
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image

from ddpm.figures.grid import to_picture

Points = Mapping[str, Mapping[str, Any]]
Axes = Mapping[str, Sequence[Point]]
LABELS = {
    "side": "side of the images, pixels",
    "batch": "images at a time",
    "images": "number of images",
    "processes": "processes",
}


@dataclass(frozen=True)
class Value:
    """A number that was measured, or follows from one; or why there is none.

    Args:
        number: seconds or bytes.
        extrapolated: not all images were worked on.
        reason: where there is no number.
    """

    number: float | None
    extrapolated: bool = False
    reason: str = ""


def seconds(point: Point, found: Mapping[str, Any] | None) -> Value:
    """Of all images, where a number of them is asked for; else of one."""
    if found is None or "reason" in found:
        return Value(None, reason="" if found is None else str(found["reason"]))
    if not point.images:
        return Value(found["an_image"])
    return Value(found["an_image"] * point.images, found["images"] < point.images)


def memory(point: Point, found: Mapping[str, Any] | None) -> Value:
    """Bytes of all processes: all images are in memory, however many of them were worked on."""
    if found is None or "reason" in found:
        return Value(None, reason="" if found is None else str(found["reason"]))
    return Value(found["memory"] or None)


QUANTITIES = {"time": seconds, "memory": memory}


def named(axis: str, point: Point) -> str:
    """A row of a table."""
    names = {
        "side": f"{point.side}x{point.side}",
        "batch": f"batch {point.batch}",
        "images": f"{point.images:,} images, in all",
        "processes": f"{point.processes} process{'es' * (point.processes > 1)}",
    }
    return names[axis]


def time_text(value: float) -> str:
    """Seconds, or what suits better."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def cell(quantity: str, value: Value) -> str:
    """A number with its unit, ~ before one that is extrapolated; or why there is none."""
    if value.number is None:
        return value.reason.replace("|", "/")[:60] or "not measured"
    text = time_text(value.number) if quantity == "time" else f"{value.number / 1e9:.2f} GB"
    return f"~{text}" if value.extrapolated else text


def both_tables(axes: Axes, points: Points) -> str:
    """Time and memory as Markdown, a row for each point of an axis."""
    lines = []
    for quantity, find in QUANTITIES.items():
        lines += [f"| {quantity} | {' | '.join(WORKS)} |", "| --- " * (len(WORKS) + 1) + "|"]
        for axis, along in axes.items():
            for point in along:
                values = [
                    cell(quantity, find(one, points.get(one.key)))
                    for one in (replace(point, work=work) for work in WORKS)
                ]
                lines.append(f"| {named(axis, point)} | {' | '.join(values)} |")
        lines.append("")
    return "\n".join(lines)


def both_figures(axes: Axes, points: Points) -> dict[str, Image.Image]:
    """The same as pictures, a panel for each axis."""
    return {quantity: figure(quantity, axes, points) for quantity in QUANTITIES}


def figure(quantity: str, axes: Axes, points: Points) -> Image.Image:
    """One quantity along every axis; what is extrapolated has hollow circles."""
    drawn = Figure(figsize=(10, 6.4), layout="constrained")
    panels = drawn.subplots(2, 2)
    for panel, (axis, along) in zip(panels.flat, axes.items(), strict=True):
        for i, work in enumerate(WORKS):
            values = [
                (getattr(point, axis), QUANTITIES[quantity](point, points.get(point.key)))
                for point in (replace(point, work=work) for point in along)
            ]
            known = [(x, value) for x, value in values if value.number is not None]
            scale = 1.0 if quantity == "time" else 1e9
            xs, ys = [x for x, _ in known], [(value.number or 0) / scale for _, value in known]
            panel.plot(xs, ys, color=f"C{i}", label=work)
            for x, y, (_, value) in zip(xs, ys, known, strict=True):
                fill = "white" if value.extrapolated else f"C{i}"
                panel.plot(x, y, "o", color=f"C{i}", markerfacecolor=fill)
        dress(panel, quantity, axis, [getattr(point, axis) for point in along])
    panels[0, 0].legend()
    return to_picture(drawn)


def dress(panel: Any, quantity: str, axis: str, ticks: Sequence[int]) -> None:
    """Scales and labels of a panel."""
    each = "" if axis == "images" else " an image"
    label = f"seconds{each}" if quantity == "time" else "GB"
    panel.set(yscale="log", xlabel=LABELS[axis], ylabel=label)
    if axis == "processes":
        panel.set_xlim(0.5, max(ticks) + 0.5)
    else:
        panel.set_xscale("log")
    low, high = panel.get_ylim()
    if high < 100 * low:
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(alpha=0.3)
