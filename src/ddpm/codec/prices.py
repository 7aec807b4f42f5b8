"""What it takes to send a step, by measurement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT, LARGEST_RATIO = 1 << 12, 1 << 20  # of the ratios of a forecast
COARSE = 8  # parts of a forecast that the count of a step's bits is told in

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


@dataclass
class Forecast:
    """How many bits the next step should have, from its price and from what steps before it had.

    Both sides follow it, in integers.
    """

    ratio: int = UNIT
    """Of what steps had to their prices, in units of 1 / UNIT."""

    def bits(self, price: int) -> int:
        """Of a step of that price."""
        return price * self.ratio // UNIT

    def quantum(self, price: int) -> int:
        """The multiple in which the step may differ from it."""
        return max(1, self.bits(price) // COARSE)

    def learn(self, price: int, bits: int) -> None:
        """What the step had."""
        if price:
            self.ratio = (self.ratio + min(bits * UNIT // price, LARGEST_RATIO)) // 2
