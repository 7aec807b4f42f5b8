"""Colour and frequency: coordinates in which the errors of a predicted x_0 hardly correlate.

An orthonormal matrix U whose columns are products of a principal colour and a basis picture of the
2-D DCT-II. What is normal and independent in these coordinates, with variances v, has the
covariance U diag(v) U^T in pixels: neighbours and channels that err together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ddpm.errors import check

Array = NDArray[np.float64]
ORTHONORMAL = 1e-5  # how far products of colour axes may be from 0 and 1
_Key = tuple[torch.device, torch.dtype]


def cosines(n: int) -> Array:
    """[n, n], the orthonormal DCT-II: row k is the cosine of k half-periods."""
    rows = np.cos(np.pi * np.arange(n)[:, None] * (np.arange(n) + 0.5) / n) * np.sqrt(2 / n)
    rows[0] /= np.sqrt(2)
    return rows


@dataclass(frozen=True)
class CosineTransform:
    """The 2-D DCT-II of images of one size, orthonormal; computed in the type of the images.

    Args:
        height, width: in pixels.
    """

    height: int
    width: int
    _cache: dict[_Key, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, x: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
        """The coefficients of images; that at [0, 0] is sqrt(h w) times their mean."""
        rows, columns = self._on(x)
        return rows @ x @ columns.mT

    def inverse(self, spectrum: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
        """The images of coefficients."""
        rows, columns = self._on(spectrum)
        return rows.mT @ spectrum @ columns

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._cache:
            rows, columns = (
                torch.from_numpy(cosines(side)).to(like.dtype).to(like.device)
                for side in (self.height, self.width)
            )
            self._cache[key] = rows, columns
        return self._cache[key]


@dataclass(frozen=True, eq=False)
class Rotation:
    """U of images of one format.

    Args:
        colours: [c, c], a principal colour in each row, orthonormal.
        height, width: in pixels.

    Raises:
        DdpmError: colours that are not orthonormal.
    """

    colours: Float[np.ndarray, "c c"]
    height: int
    width: int
    _dct: CosineTransform = field(init=False, repr=False)

    def __post_init__(self) -> None:
        products = self.colours.astype(np.float64) @ self.colours.astype(np.float64).T
        check(
            bool(np.abs(products - np.eye(len(self.colours))).max() < ORTHONORMAL),
            "the axes of a rotation of colours must be orthonormal",
        )
        object.__setattr__(self, "_dct", CosineTransform(self.height, self.width))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the images, and of the coordinates: principal colour, two frequencies."""
        return len(self.colours), self.height, self.width

    def rotate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """U^T x: the coordinates of images.

        Raises:
            DdpmError: images of another shape.
        """
        self.check(x)
        return torch.einsum("dc,bchw->bdhw", self._axes(x), self._dct(x))

    def unrotate(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """U y: the images that have these coordinates.

        Raises:
            DdpmError: coordinates of another shape.
        """
        self.check(y)
        return torch.einsum("dc,bdhw->bchw", self._axes(y), self._dct.inverse(y))

    def check(self, x: Tensor) -> None:
        """Refuse images of another shape.

        Raises:
            DdpmError: they are.
        """
        check(
            x.ndim == 4 and tuple(x.shape[1:]) == self.shape,
            f"this rotation is of images of shape {self.shape}, got {tuple(x.shape[1:])}",
        )

    def _axes(self, like: Tensor) -> Tensor:
        return torch.from_numpy(self.colours).to(like.dtype).to(like.device)


def principal_colours(covariance: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    """The axes along which colours of this covariance vary: orthonormal rows, float32, the axis of
    the largest variance first; the largest number of each is positive."""
    axes = np.linalg.eigh(covariance.astype(np.float64))[1].T[::-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return (axes * np.sign(largest)).astype(np.float32)
