"""The Frechet distance between two sets of features, each taken as a Gaussian."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.errors import check

LIMIT = 8192  # rows of the largest matrix whose singular values are taken: 0.5 GB
NUMBERS = 400_000_000  # of all features of a set, which are held in float64: 3.2 GB


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m e"]) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2) (Dowson & Landau 1982), in float64.

    With X and Y the centred features over the roots of n - 1 and m - 1, the trace of the root is
    the sum of the singular values of X Y^T, [n, m]; for more images than numbers X and Y are first
    replaced by the d rows of their triangular factors, which have the same covariances. No complex
    numbers, no ill-conditioned matrix root, and no d x d matrix of large images.

    Raises:
        DdpmError: a set has fewer than two members, the dimensions differ, or the matrix would be
            too large.
    """
    check(x.shape[1] == y.shape[1], "a Frechet distance needs features of the same size")
    check_frechet(len(x), len(y), x.shape[1])
    mean = float(((x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)) ** 2).sum())
    a, b = _root(x), _root(y)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return mean + float((a**2).sum() + (b**2).sum() - 2 * cross)


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


def _root(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "k d"]:
    """A matrix R of min(n, d) rows with R^T R the covariance of the rows of x."""
    centred = x.astype(np.float64)
    centred -= centred.mean(axis=0)
    centred /= math.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))


def pixel_frechet_distance(
    x: UInt8[Tensor, "n c h w"], y: UInt8[Tensor, "m c h w"], image_format: ImageFormat
) -> float:
    """The Frechet distance of the pixels themselves, scaled to [-1, 1]."""
    a, b = (image_format.to_unit(z).flatten(1).numpy() for z in (x, y))
    return frechet_distance(a, b)
