"""A predicted x_0 put right: a linear fit of x_0 on it, for each timestep and band of frequencies.

At high noise a network passes on much that is no part of the image, above all in fine detail, and
its x^_0 errs by more than the mean image would. What is left of it after a linear fit,

    mean + sum over bands f of a(t, f) (x^_0 - mean)_f,

errs least of all that a gain for each band can do. The bands are those of the whole image's
orthonormal DCT; ancestral sampling forgives the difference and a deterministic sampler does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ddpm.diffusion.rotation import CosineTransform
from ddpm.errors import check
from ddpm.likelihood.prediction_error import restored, stored

Array = NDArray[np.float64]
PREFIX = "denoising_error.calibration."  # of its tensors in a checkpoint
TABLES = ("mean", "slopes", "spread", "share", "level", "decoder_bpd")
FIRST = 1.5  # the radius of the band next to the mean; each one after it reaches twice as far


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was measured of a network's predicted x_0, at m of the T timesteps of its whole chain.

    It is a function of a predicted x_0, [b, c, h, w], and its timesteps, [b], that corrects it.

    Args:
        timesteps: [m], rising, from 0 to T-1.
        mean: [c, h, w], of the images, in [-1, 1].
        slopes: [m, bands], how much of x^_0 - mean is kept in each band (`frequency_bands`).
        spread: [c, h, w], mean squared distance of the images from their mean.
        share, level: [m], the error of the corrected x_0 at a pixel, in terms of the network's own
            there: level * own^(1 - share) * spread^share.
        decoder_bpd: [m], as that of a `DenoisingError`, of the corrected x_0.

    Raises:
        DdpmError: arrays that do not fit together.
    """

    timesteps: Int[np.ndarray, " m"]
    mean: Float[np.ndarray, "c h w"]
    slopes: Float[np.ndarray, "m bands"]
    spread: Float[np.ndarray, "c h w"]
    share: Float[np.ndarray, " m"]
    level: Float[np.ndarray, " m"]
    decoder_bpd: Float[np.ndarray, " m"]
    _dct: CosineTransform = field(init=False, repr=False)
    _cache: dict[torch.device, tuple[Tensor, ...]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_dct", CosineTransform(*self.mean.shape[1:]))
        bands = int(frequency_bands(*self.mean.shape[1:]).max()) + 1
        rows = (self.share, self.level, self.decoder_bpd)
        check(
            len(self.timesteps) > 0
            and bool((np.diff(self.timesteps) > 0).all())
            and self.slopes.shape == (len(self.timesteps), bands)
            and all(row.shape == self.timesteps.shape for row in rows)
            and self.mean.shape == self.spread.shape
            and all(np.isfinite(array).all() for array in (self.mean, self.slopes, *rows))
            and bool((self.spread > 0).all() and (self.level > 0).all()),
            "a calibration needs one row for each of its rising timesteps and one slope for each "
            "band of its images",
        )

    def __call__(
        self, pred_xstart: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The corrected x_0; what a slope of 1 leaves alone comes back as it was."""
        mean, gains = self._on(pred_xstart.device)
        spectrum = self._dct(pred_xstart - mean)
        return pred_xstart + self._dct.inverse(gains[timesteps] * spectrum)

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """The mean, and slopes - 1 of every timestep and frequency."""
        if device not in self._cache:
            gains = self.slopes_at(np.arange(self.timesteps[-1] + 1)) - 1
            gains = gains[:, None, frequency_bands(*self.mean.shape[1:])]
            parts = (self.mean, gains)
            self._cache[device] = tuple(torch.from_numpy(part).float().to(device) for part in parts)
        return self._cache[device]

    def slopes_at(self, timesteps: Int[np.ndarray, " k"]) -> Array:
        """[k, bands], the slopes at any timesteps, interpolated."""
        known = self.slopes.astype(np.float64).T
        return np.stack([np.interp(timesteps, self.timesteps, band) for band in known], axis=1)

    def error_at(self, timestep: int, own: Float[np.ndarray, "c h w"]) -> Array:
        """[c, h, w], the mean squared error of the corrected x_0.

        Args:
            timestep: any.
            own: that of the network's own.
        """
        share = float(np.interp(timestep, self.timesteps, self.share))
        level = float(np.exp(np.interp(timestep, self.timesteps, np.log(self.level))))
        return level * between(own, self.spread, share)

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it: float32, some 30 KB for colour images of 32x32 pixels."""
        return stored(PREFIX, self.timesteps, {name: getattr(self, name) for name in TABLES})

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> Calibration | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if it was not measured.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        found = restored(PREFIX, TABLES, tensors)
        return None if found is None else Calibration(*found)


def frequency_bands(height: int, width: int) -> Int[np.ndarray, "h w"]:
    """The band of each coefficient of the DCT: 0 is the mean, 1 what lies within a radius of 1.5 of
    it, and every further one reaches twice as far as the one before."""
    radius = np.hypot(np.arange(height)[:, None], np.arange(width)[None])
    return np.where(radius == 0, 0, 1 + np.ceil(np.log2(radius.clip(1) / FIRST)).clip(0)).astype(
        int
    )


def between(own: NDArray, spread: NDArray, share: float) -> Array:
    """own^(1 - share) * spread^share; `own` itself for a share of 0."""
    own = own.astype(np.float64)
    return own * (spread / own) ** share
