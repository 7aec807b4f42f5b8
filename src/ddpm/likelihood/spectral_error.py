"""The denoising error in colour and frequency: one mean square for each principal colour and
coefficient of the DCT, at each timestep.

What a network cannot know of an image is local structure: neighbouring pixels and their channels
err together, so that an error measured pixel by pixel leaves out most of what is known about it.
In the coordinates of `ddpm.diffusion.rotation` the errors hardly correlate. The posterior
q(x_s | x_t, x_0) is isotropic, which no rotation changes: a step costs the sum over coordinates of
1/2 log2(1 + c^2 e / lambda^2), as it does over pixels; and where all pixels err alike it costs
less, since the logarithm is concave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.diffusion.rotation import Rotation, principal_colours
from ddpm.errors import check
from ddpm.likelihood.calibration import frequency_bands
from ddpm.likelihood.prediction_error import interpolated, restored, stored

Array = NDArray[np.float64]
PREFIX = "denoising_error.spectral."  # of its tensors in a checkpoint
TABLES = ("colours", "xstart_mse", "kept")
LEAST = 1e-12  # that an error can be
UNROTATED = (
    "the variance 'spectral' needs this model's denoising error in colour and frequency, which has "
    "not been measured; measure it once on training images with `ddpm measure RUN` (--data IMAGES, "
    "if it was imported) or model.measure(images)"
)


@dataclass(frozen=True, eq=False)
class SpectralError:
    """What was measured of a network in rotated coordinates, at m of the T timesteps.

    Args:
        timesteps: [m], rising, from 0 to T-1.
        colours: [c, c], the principal colours of the images, a row each.
        xstart_mse: [m, c, h, w], mean squared error of the predicted x_0 in each coordinate:
            principal colour, vertical and horizontal frequency; images in [-1, 1].
        kept: [m, c, bands], the share of it that the calibrated x_0 keeps, for each band of
            frequencies (`ddpm.likelihood.calibration.frequency_bands`).

    Raises:
        DdpmError: arrays that do not fit together.
    """

    timesteps: Int[np.ndarray, " m"]
    colours: Float[np.ndarray, "c c"]
    xstart_mse: Float[np.ndarray, "m c h w"]
    kept: Float[np.ndarray, "m c bands"]
    rotation: Rotation = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows, channels, height, width = self.xstart_mse.shape
        bands = int(frequency_bands(height, width).max()) + 1
        check(
            len(self.timesteps) == rows > 0
            and bool((np.diff(self.timesteps) > 0).all())
            and self.colours.shape == (channels, channels)
            and self.kept.shape == (rows, channels, bands)
            and all(
                bool((table > 0).all() and np.isfinite(table).all())
                for table in (self.xstart_mse, self.kept)
            ),
            "an error in colour and frequency needs one positive entry for each coordinate of its "
            "rising timesteps, and for each colour and band",
        )
        object.__setattr__(self, "rotation", Rotation(self.colours, height, width))

    def at(self, timesteps: Int[np.ndarray, " k"]) -> Array:
        """[k, c, h, w], `xstart_mse` at any timesteps: its logarithm, interpolated, in float64."""
        return interpolated(timesteps, self.timesteps, self.xstart_mse)

    @property
    def calibrated(self) -> SpectralError:
        """The error of the calibrated x_0, as a table of its own."""
        bands = frequency_bands(*self.xstart_mse.shape[2:])
        rows = zip(self.xstart_mse, self.kept, strict=True)
        error = np.stack([(own * kept[:, bands]).clip(LEAST) for own, kept in rows])
        return replace(self, xstart_mse=error, kept=np.ones_like(self.kept))

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it: float32, as large as the table of the pixels."""
        return stored(PREFIX, self.timesteps, {name: getattr(self, name) for name in TABLES})

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> SpectralError | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if it was not measured.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        found = restored(PREFIX, TABLES, tensors)
        return None if found is None else SpectralError(*found)


class SpectralFit:
    """A spectral error in the making; of several processes each measures some timesteps.

    Args:
        times: the timesteps, rising.
        images: grey levels.
        image_format: of the images.
    """

    def __init__(
        self,
        times: Int[np.ndarray, " m"],
        images: UInt8[Tensor, "n c h w"],
        image_format: ImageFormat,
    ) -> None:
        self.times, self.images, self.format = times, images, image_format
        channels, height, width = image_format.shape
        self.parts = torch.arange(len(images), device=images.device).split(
            image_format.batch(len(images))
        )
        self.rotation = Rotation(self._colours(), height, width)
        bands = frequency_bands(height, width)
        self.members = np.eye(int(bands.max()) + 1)[bands.reshape(-1)]  # [h w, bands]
        # Rows of other processes stay 0: they are added up.
        self.mse = torch.zeros(len(times), *image_format.shape)
        self.kept = torch.zeros(len(times), channels, self.members.shape[1])

    def _colours(self) -> Float[np.ndarray, "c c"]:
        """The principal colours of all pixels."""
        sums = torch.zeros(self.format.channels, dtype=torch.float64)
        products = torch.zeros(self.format.channels, self.format.channels, dtype=torch.float64)
        for part in self.parts:
            x = self.format.to_unit(self.images[part]).double().transpose(0, 1).flatten(1)
            sums += x.sum(dim=1).cpu()
            products += (x @ x.T).cpu()
        count = len(self.images) * self.format.height * self.format.width
        mean = (sums / count).numpy()
        return principal_colours(products.numpy() / count - np.outer(mean, mean))

    def squared(self, pred_xstart: Float[Tensor, "n c h w"]) -> Float[np.ndarray, "c h w"]:
        """Mean squared error of the x_0 predicted of each image, in each coordinate."""
        n, device = len(self.images), self.images.device
        found = torch.zeros(self.format.shape, dtype=torch.float64, device=device)
        for part in self.parts:
            difference = self.format.to_unit(self.images[part]) - pred_xstart[part]
            squares = self.rotation.rotate(difference) ** 2
            found += len(part) / n * squares.double().mean(dim=0)
        return found.cpu().numpy()

    def add(
        self, i: int, own: Float[np.ndarray, "c h w"], corrected: Float[np.ndarray, "c h w"]
    ) -> None:
        """Keep what was measured at timestep i.

        Args:
            i: its row.
            own: `squared` of the network's own x_0.
            corrected: of the calibrated one; the same where the calibration leaves it alone.
        """
        sizes, shape = self.members.sum(axis=0), own.shape
        before, after = (
            (error.reshape(shape[0], -1) @ self.members).clip(LEAST) for error in (own, corrected)
        )
        # As if one more image had been seen that errs by the mean of the band.
        means = (before / sizes @ self.members.T).reshape(shape)
        n = len(self.images)
        self.mse[i] = torch.from_numpy(((n * own + means) / (n + 1)).clip(LEAST))
        self.kept[i] = torch.from_numpy(after / before)

    def collected(self) -> SpectralError:
        """What all processes have measured, once their `mse` and `kept` were added up."""
        tables = self.rotation.colours, self.mse.numpy(), self.kept.numpy()
        return SpectralError(self.times, *tables)
