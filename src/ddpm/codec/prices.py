"""What it takes to send a step, by measurement (`benchmarks/prices.py`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def overhead(kl: ArrayLike) -> NDArray[np.float64]:
    """Path bits beyond the KL, for each bit of it, with which as much arrives as is meant."""
    return np.asarray(0.06 + 1.2 / np.sqrt(np.asarray(kl)))


def with_overhead(kl: ArrayLike) -> NDArray[np.float64]:
    """Path bits that a step of some bits of KL takes; infinitely many where there is no step."""
    found = np.asarray(kl, dtype=np.float64)
    finite = np.where(np.isfinite(found), found, 1.0)
    return np.where(np.isfinite(found), finite * (1 + overhead(np.maximum(finite, 1e-9))), np.inf)
