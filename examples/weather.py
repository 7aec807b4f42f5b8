"""The chains of docs/markov-chains.md as pictures: the weather as a directed graph, its way to the
stationary distribution, and a chain that goes round.

    python examples/weather.py --out FILE.png
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

WEATHER = np.array([[0.8, 0.2], [0.6, 0.4]])
RING = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
RADIUS, DAYS = 0.3, 10


def graph(axes, matrix, names, places):
    """States as circles and an arrow, with its probability, for everything that can happen.

    Args:
        axes: to draw on.
        matrix: [n, n], a row for each state that is left.
        names: of the states.
        places: [n, 2], their centres.
    """
    places = np.asarray(places, dtype=float)
    middle = places.mean(axis=0)
    for i, (name, here) in enumerate(zip(names, places, strict=True)):
        axes.add_patch(Circle(here, RADIUS, facecolor="#d6e4f0", edgecolor="black"))
        axes.text(*here, name, ha="center", va="center")
        outward = (here - middle) / np.linalg.norm(here - middle)
        for j, there in enumerate(places):
            p = matrix[i, j]
            if i == j:
                across = np.array([-outward[1], outward[0]])
                ends = [here + RADIUS * (0.7 * outward + side * 0.7 * across) for side in (1, -1)]
                bend, at = -1.7, here + 2.75 * RADIUS * outward
            else:
                along = (there - here) / np.linalg.norm(there - here)
                side = np.array([-along[1], along[0]])  # to the left of the arrow
                ends = [here + RADIUS * (along + 0.3 * side), there - RADIUS * (along - 0.3 * side)]
                far = 0.2 + 0.12 * np.linalg.norm(there - here)
                bend, at = -0.2, (here + there) / 2 + far * side
            axes.add_patch(
                FancyArrowPatch(
                    *ends,
                    connectionstyle=f"arc3,rad={bend}",
                    arrowstyle="-|>",
                    mutation_scale=14,
                    linewidth=0.6 + 3 * p,
                    shrinkA=0,
                    shrinkB=0,
                    color="0.25",
                )
            )
            axes.text(*at, f"{p:g}", ha="center", va="center")
    low, high = places.min(axis=0), places.max(axis=0)
    axes.set(xlim=(low[0] - 1.05, high[0] + 1.05), ylim=(low[1] - 1.05, high[1] + 1.05))
    axes.set_aspect("equal")
    axes.axis("off")


def beliefs(first, days=DAYS):
    """[days, 2], of each day, the first one included."""
    return np.array([first @ np.linalg.matrix_power(WEATHER, day) for day in range(days)])


def picture():
    """Three panels."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    graph(left, WEATHER, ("sunny", "rainy"), [(0, 0), (1.7, 0)])
    left.set_title("the weather")
    for first, style in (([1, 0], "^:"), ([0.5, 0.5], "o-"), ([0, 1], "v:")):
        sunny = beliefs(np.array(first, dtype=float))[:, 0]
        middle.plot(range(1, DAYS + 1), sunny, style, label=f"from ({first[0]:g}, {first[1]:g})")
    middle.axhline(0.75, color="grey", linewidth=0.8)
    middle.set(xlabel="day", ylabel="belief that it is sunny", ylim=(-0.03, 1.03))
    middle.set_xticks(range(1, DAYS + 1))
    middle.legend()
    middle.set_title("ten days, on the way to 0.75")
    turns = np.pi / 2 - 2 * np.pi * np.arange(3) / 3
    graph(right, RING, "ABC", 1.45 * np.stack([np.cos(turns), np.sin(turns)], axis=1))
    right.set_title("a chain that goes round")
    return figure


def main(argv=None):
    """Draw."""
    parser = argparse.ArgumentParser(description="The chains of docs/markov-chains.md.")
    parser.add_argument("--out", type=Path, default=Path("weather.png"))
    picture().savefig(parser.parse_args(argv).out, dpi=100)


if __name__ == "__main__":
    main()
