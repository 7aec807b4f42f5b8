"""What it takes to send a step, by measurement (`benchmarks/prices.py`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def overhead(kl: ArrayLike) -> NDArray[np.float64]:
    """Path bits beyond the KL, for each bit of it, with which as much arrives as is meant."""
    return 0.06 + 1.2 / np.sqrt(np.asarray(kl))
