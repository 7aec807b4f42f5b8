"""The Frechet distance between two sets of features, each taken as a Gaussian.

Of Inception's features it is the FID (Heusel et al. 2017), and of no others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.evaluation.statistics import Statistics

LIMIT = 8192  # rows of the largest matrix whose singular values are taken: 0.5 GB
NUMBERS = 400_000_000  # of all features of a set, which are held in float64: 3.2 GB
NEGATIVE = 1e-4  # how far below 0, for the largest, rounding to float32 may put an eigenvalue


@dataclass(frozen=True)
class Gaussian:
    """What the distance needs of a set.

    Args:
        mean: of its features.
        root: a matrix R with R^T R their covariance; of n features of d numbers it need not have
            more than min(n, d) rows, so no d x d matrix of large images is made.
    """

    mean: Float[np.ndarray, " d"]
    root: Float[np.ndarray, "k d"]

    @staticmethod
    def of_features(x: Float[np.ndarray, "n d"]) -> Gaussian:
        """The centred features over the root of n - 1; of more features than numbers the d rows of
        their triangular factor."""
        mean = x.mean(axis=0, dtype=np.float64)
        root = (x - mean) / math.sqrt(len(x) - 1)
        if len(x) > x.shape[1]:
            root = np.asarray(np.linalg.qr(root, mode="r"))
        return Gaussian(mean, root)

    @staticmethod
    def of_statistics(found: Statistics) -> Gaussian:
        """From the eigenvalues and eigenvectors of the covariance.

        Raises:
            DdpmError: it is none.
        """
        values, vectors = np.linalg.eigh(found.sigma.astype(np.float64))
        largest = max(float(values[-1]), 0.0)
        check(
            float(values[0]) >= -NEGATIVE * largest,
            f"a covariance has the eigenvalue {values[0]:.3g}, which no covariance has",
        )
        # What is smaller is rounding, and its root would not be small.
        kept = values > largest * len(values) * np.finfo(np.float64).eps
        root = np.sqrt(values[kept])[:, None] * vectors.T[kept]
        return Gaussian(found.mu.astype(np.float64), root)


def distance_of_gaussians(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) (Dowson & Landau 1982).

    The eigenvalues of S_a^1/2 S_b S_a^1/2, whose roots sum to the trace of (S_a S_b)^1/2, are the
    squares of the singular values of A B^T: no root of a product that is not symmetric, which may
    turn complex, and no root of an eigenvalue that should be 0.

    Raises:
        DdpmError: they are of features of other sizes.
    """
    check(len(a.mean) == len(b.mean), "a Frechet distance needs features of the same size")
    squares = ((a.mean - b.mean) ** 2).sum() + (a.root**2).sum() + (b.root**2).sum()
    if min(len(a.root), len(b.root)) == 0:
        return float(squares)
    return float(squares - 2 * np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum())


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m e"]) -> float:
    """The distance of two sets of features, in float64.

    Raises:
        DdpmError: a set has fewer than two members, the dimensions differ, or the matrix would be
            too large.
    """
    check(x.shape[1] == y.shape[1], "a Frechet distance needs features of the same size")
    check_frechet(len(x), len(y), x.shape[1])
    return distance_of_gaussians(Gaussian.of_features(x), Gaussian.of_features(y))


def frechet_from_statistics(a: Statistics, b: Statistics) -> float:
    """The same from means and covariances.

    Raises:
        DdpmError: they are of features of other sizes, or a matrix is no covariance.
    """
    check(len(a.mu) == len(b.mu), "a Frechet distance needs features of the same size")
    return distance_of_gaussians(Gaussian.of_statistics(a), Gaussian.of_statistics(b))


def check_frechet(n: int, m: int, d: int) -> None:
    """Refuse, before any work, what `frechet_distance` would.

    Args:
        n, m: members of the two sets.
        d: numbers of each.

    Raises:
        DdpmError: too few, or too many.
    """
    check(min(n, m) >= 2, "a Frechet distance needs at least two images on each side")
    rows = min(d, max(n, m))
    check(
        rows <= LIMIT,
        f"a Frechet distance of {max(n, m):,} images of {d:,} numbers needs a matrix of {rows:,} "
        f"rows, and {LIMIT:,} is the limit; take at most {LIMIT:,} images",
    )
    check(
        max(n, m) * d <= NUMBERS,
        f"{max(n, m):,} images of {d:,} numbers do not fit in memory for a Frechet distance; take "
        f"at most {NUMBERS // d:,} images",
    )


def pixel_frechet_distance(
    x: UInt8[Tensor, "n c h w"], y: UInt8[Tensor, "m c h w"], image_format: ImageFormat
) -> float:
    """The Frechet distance of the pixels themselves, scaled to [-1, 1]."""
    a, b = (image_format.to_unit(z).flatten(1).numpy() for z in (x, y))
    return frechet_distance(a, b)
