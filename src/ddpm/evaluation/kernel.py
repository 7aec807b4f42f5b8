"""The kernel distance: the unbiased squared maximum mean discrepancy of a polynomial kernel.

Of Inception's features it is the KID (Binkowski et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm.errors import check

SUBSETS, SIZE = 100, 1000  # as torch-fidelity has them
BLOCK = 2048  # rows and columns of the part of a kernel matrix that is held


@dataclass(frozen=True)
class KernelDistance:
    """A distance, which may be negative: it is unbiased.

    Args:
        value: the mean over the subsets.
        std: the standard deviation among them; None where the whole sets were compared once.
        subsets: how many.
        size: members of a subset of the smaller set, or all of it.
    """

    value: float
    std: float | None
    subsets: int
    size: int


def kernel_distance(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m e"],
    *,
    subsets: int = SUBSETS,
    size: int = SIZE,
    seed: int = 0,
) -> KernelDistance:
    """MMD^2 with the kernel (x . y / d + 1)^3, over subsets of both sets.

    Sets of which one has no more than `size` members are compared once, as they are.

    Args:
        x, y: features; arrays on disk are read in parts.
        subsets, size: how many subsets, and members of each.
        seed: decides which.

    Raises:
        DdpmError: features of other sizes, or fewer than two of a set.
    """
    check(x.shape[1] == y.shape[1], "a kernel distance needs features of the same size")
    smaller = min(len(x), len(y))
    check(smaller >= 2, "a kernel distance needs at least two images on each side")
    check(size >= 2 and subsets >= 1, "a kernel distance needs subsets of at least two images")
    if smaller <= size:
        return KernelDistance(_squared_mmd(x, y), None, 1, smaller)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        a, b = (z[np.sort(rng.choice(len(z), size, replace=False))] for z in (x, y))
        found.append(_squared_mmd(a, b))
    return KernelDistance(float(np.mean(found)), float(np.std(found)), subsets, size)


def _squared_mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Without the kernel of a vector with itself, which would bias it (Gretton et al. 2012)."""
    n, m = len(x), len(y)
    within = _sum(x, x, True) / (n * (n - 1)) + _sum(y, y, True) / (m * (m - 1))
    return within - 2 * _sum(x, y, False) / (n * m)


def _sum(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], same: bool) -> float:
    """The sum of the kernel over all pairs; of one set with itself over pairs of different ones."""
    total = 0.0
    for first in range(0, len(x), BLOCK):
        a = x[first : first + BLOCK].astype(np.float64)
        for other in range(first if same else 0, len(y), BLOCK):
            diagonal = same and other == first
            b = a if diagonal else y[other : other + BLOCK].astype(np.float64)
            kernel = (a @ b.T / x.shape[1] + 1) ** 3
            if diagonal:
                np.fill_diagonal(kernel, 0)
            total += float(kernel.sum()) * (2 if same and not diagonal else 1)
    return total
