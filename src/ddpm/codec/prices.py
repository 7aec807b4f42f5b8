"""What it takes to send a step, by measurement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOSS = 0.062  # bits that a long path takes beyond each bit of its KL
END = 4.5  # bits that every path of more than a few loses besides, at its end
SHORT = 4.0  # KL of a path, in bits, that loses half of END
SENT = 1.15  # that the sender takes, more than the search loses: later steps have less to tell
COUNT = 1.5  # bits that say how many bits a step has, in eighths of what the last step foretold


def overhead(kl: Array | float) -> Array | float:
    """Path bits beyond the KL, for each bit of it, with which as much arrives as is meant.

    A fit to `benchmarks/prices.py`, made for 5 to 10,000 bits and a beam of 1,024.

    Args:
        kl: KL(q || p) of the path (of each segment of it), in bits.
    """
    return LOSS + END / (kl + SHORT)


def path_bits(kl: Array | float) -> Array | float:
    """What a path takes."""
    return kl * (1 + overhead(kl))


def step_price(kl: Array | float) -> Array | float:
    """What a step takes: its path, and the count of its bits."""
    return path_bits(kl) + COUNT
