"""Mean and covariance of features, batch by batch in float64: in memory that no count changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm.errors import check

DENSE = 4096  # features up to which a covariance is held: 134 MB


@dataclass(frozen=True)
class Statistics:
    """The first two moments of a set of features.

    Args:
        mu: their mean.
        sigma: their covariance, over count - 1 as `numpy.cov` has it.
        count: of the set; None where nobody knows.
    """

    mu: Float[np.ndarray, " d"]
    sigma: Float[np.ndarray, "d d"]
    count: int | None = None


class Moments:
    """Mean and covariance of vectors that come in batches of any size, stable wherever the mean is.

    Batches are merged by their means (Chan, Golub & LeVeque 1979), not by sums of squares.

    Args:
        size: numbers of a vector, at most `DENSE`.
    """

    def __init__(self, size: int) -> None:
        check(
            size <= DENSE,
            f"a covariance of {size:,} features is too large to hold; {DENSE:,} is the limit",
        )
        self.count, self.mean = 0, np.zeros(size)
        self.scatter = np.zeros((size, size))  # sum of the squares of centred vectors

    def add(self, x: Float[np.ndarray, "b d"]) -> None:
        """A batch more.

        Raises:
            DdpmError: a number is not finite.
        """
        check(bool(np.isfinite(x).all()), "features of some images are not finite numbers")
        if len(x) == 0:
            return
        rows = np.empty((len(x) + 1, x.shape[1]))
        rows[:-1] = x
        mean = rows[:-1].mean(axis=0)
        rows[:-1] -= mean
        moved, total = mean - self.mean, self.count + len(x)
        # What lies between the two means is one more centred vector.
        rows[-1] = moved * math.sqrt(self.count * len(x) / total)
        self.scatter += rows.T @ rows
        self.mean += moved * (len(x) / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Of all that was added.

        Raises:
            DdpmError: fewer than two vectors were.
        """
        check(self.count >= 2, f"a covariance needs at least two images, got {self.count}")
        return Statistics(self.mean.copy(), self.scatter / (self.count - 1), self.count)


def statistics_of(x: Float[np.ndarray, "n d"]) -> Statistics:
    """Of features that are at hand.

    Raises:
        DdpmError: fewer than two vectors, or one that is not finite.
    """
    moments = Moments(x.shape[1])
    for first in range(0, len(x), 4096):
        moments.add(x[first : first + 4096])
    return moments.statistics()
