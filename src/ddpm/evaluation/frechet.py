"""The Frechet distance between two sets of features, each taken as a Gaussian."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.errors import check


def frechet_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m e"]) -> float:
    """|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^1/2) (Dowson & Landau 1982), in float64.

    The trace of the root is the sum of the roots of the eigenvalues of S_x^1/2 S_y S_x^1/2, which
    is symmetric: no complex numbers and no ill-conditioned matrix root.

    Raises:
        DdpmError: a set has fewer than two members or the dimensions differ.
    """
    check(min(len(x), len(y)) >= 2, "a Frechet distance needs at least two images on each side")
    check(x.shape[1] == y.shape[1], "a Frechet distance needs features of the same size")
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    cov_x, cov_y = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(0)).sum()
    return mean + float(np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def pixel_frechet_distance(
    x: UInt8[Tensor, "n c h w"], y: UInt8[Tensor, "m c h w"], image_format: ImageFormat
) -> float:
    """The Frechet distance of the pixels themselves, scaled to [-1, 1]."""
    a, b = (image_format.to_unit(z).flatten(1).numpy() for z in (x, y))
    return frechet_distance(a, b)
