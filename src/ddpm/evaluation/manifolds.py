"""Precision and recall of samples (Kynkaanniemi et al. 2019): which lie among the real images, and
which real images lie among them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from ddpm.errors import check

NEIGHBOURS = 3
BLOCK = 1024  # rows and columns of the part of a matrix of distances that is held
# Distances that differ by less, for the vectors' own squares, are equal: the order of a sum decides
# about as much, and an image that is in both sets must be found again.
ROUNDING = 1e-12


def precision_recall(
    real: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m e"], k: int = NEIGHBOURS
) -> tuple[float, float]:
    """The share of samples within the real images' manifold, and of real images within theirs.

    The manifold of a set is the union of balls around its members, each of which just reaches its
    k-th nearest other member. Copies are members like any others: of k + 1 equal ones the balls
    are points. What lies on the edge lies within.

    Args:
        real, samples: features; arrays on disk are read in parts.
        k: of the neighbour that a ball reaches.

    Raises:
        DdpmError: features of other sizes, or no more than k of a set.
    """
    check(real.shape[1] == samples.shape[1], "precision needs features of the same size")
    fewest = min(len(real), len(samples))
    check(
        fewest > k >= 1,
        f"precision and recall with {k} neighbours need at least {k + 1} images on each side, "
        f"got {fewest}",
    )
    centre = real[: 8 * BLOCK].mean(axis=0, dtype=np.float64)  # the smaller, the less is rounded
    precision = _within(samples, real, _radii(real, k, centre), centre)
    recall = _within(real, samples, _radii(samples, k, centre), centre)
    return float(precision.mean()), float(recall.mean())


def _radii(
    x: Float[np.ndarray, "n d"], k: int, centre: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " n"]:
    """The squared distance of each vector to its k-th nearest other one."""
    radii = np.empty(len(x))
    for first in range(0, len(x), BLOCK):
        a = x[first : first + BLOCK] - centre
        nearest = np.full((len(a), k), np.inf)
        for other in range(0, len(x), BLOCK):
            distances = _squares(a, x[other : other + BLOCK] - centre)[0]
            if other == first:
                np.fill_diagonal(distances, np.inf)
            both = np.concatenate([nearest, distances], axis=1)
            nearest = np.partition(both, k - 1, axis=1)[:, :k]
        radii[first : first + BLOCK] = nearest[:, k - 1]
    return radii


def _within(
    probes: Float[np.ndarray, "m d"],
    x: Float[np.ndarray, "n d"],
    radii: Float[np.ndarray, " n"],
    centre: Float[np.ndarray, " d"],
) -> Bool[np.ndarray, " m"]:
    """Which probes lie in any of the balls around x."""
    found = np.zeros(len(probes), dtype=bool)
    for first in range(0, len(probes), BLOCK):
        a = probes[first : first + BLOCK] - centre
        for other in range(0, len(x), BLOCK):
            distances, size = _squares(a, x[other : other + BLOCK] - centre)
            inside = distances <= radii[other : other + BLOCK] + ROUNDING * size
            found[first : first + BLOCK] |= inside.any(axis=1)
    return found


def _squares(
    a: Float[np.ndarray, "b d"], b: Float[np.ndarray, "c d"]
) -> tuple[Float[np.ndarray, "b c"], Float[np.ndarray, "b c"]]:
    """Squared distances of all pairs, at least 0, and what their rounding is proportional to."""
    size = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.maximum(size - 2 * (a @ b.T), 0), size
