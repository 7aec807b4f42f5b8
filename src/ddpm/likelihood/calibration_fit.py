"""How a calibration is fitted: timestep by timestep, as far as the images prove it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from ddpm.data.images import ImageFormat
from ddpm.diffusion.rotation import CosineTransform
from ddpm.likelihood.calibration import Calibration, between, frequency_bands
from ddpm.likelihood.prediction_error import decoder_bits, squared_error
from ddpm.runtime import parallel

Array = NDArray[np.float64]
LEAST = 1e-30  # below any sum of squares that is none


class CalibrationFit:
    """A calibration in the making; of several processes each fits some timesteps.

    Args:
        times: the timesteps, rising.
        images: grey levels.
        image_format: of the images.
        clip: whether the chain clips its predicted x_0 to [-1, 1].
    """

    def __init__(
        self,
        times: Int[np.ndarray, " m"],
        images: UInt8[Tensor, "n c h w"],
        image_format: ImageFormat,
        clip: bool,
    ) -> None:
        self.times, self.images, self.format, self.clip = times, images, image_format, clip
        device, (_, height, width) = images.device, image_format.shape
        self.parts = torch.arange(len(images), device=device).split(image_format.batch(len(images)))
        sums = [image_format.to_unit(images[part]).double().sum(dim=0) for part in self.parts]
        self.mean = (torch.stack(sums).sum(dim=0) / len(images)).float()
        self.spread = squared_error(self.mean[None], images, image_format).astype(np.float32)
        self.dct = CosineTransform(height, width)
        self.bands = torch.from_numpy(frequency_bands(height, width)).to(device)
        self.slopes = torch.zeros(len(times), int(self.bands.max()) + 1)
        self.numbers = torch.zeros(3, len(times))  # share, level, decoder_bpd

    def add(
        self, i: int, pred_xstart: Float[Tensor, "n c h w"], own: Array, decoder_bpd: float
    ) -> bool:
        """Fit timestep i; whether its correction makes the error fall, and so is used.

        Args:
            i: its row.
            pred_xstart: the x_0 predicted of each image; it is corrected in place.
            own: [c, h, w], its mean squared error.
            decoder_bpd: what the exact pixels cost around it.
        """
        slopes = self.fitted(pred_xstart).astype(np.float32)
        self._correct(pred_xstart, torch.from_numpy(slopes))
        corrected = squared_error(pred_xstart, self.images, self.format)
        mends = bool(corrected.mean() < own.mean())
        if mends:
            share, level = share_and_level(own, corrected, self.spread)
            decoder_bpd = decoder_bits(pred_xstart, corrected, self.images, self.format)
        else:
            slopes, share, level = np.ones_like(slopes), 0.0, 1.0
        self.slopes[i] = torch.from_numpy(slopes)
        self.numbers[:, i] = torch.tensor([share, level, decoder_bpd])
        return mends

    def collected(self) -> Calibration:
        """What all processes have fitted."""
        parallel.all_reduce_sum(self.slopes, self.numbers)
        mean, slopes = self.mean.cpu().numpy(), self.slopes.numpy()
        return Calibration(self.times, mean, slopes, self.spread, *self.numbers.numpy())

    def fitted(self, pred_xstart: Float[Tensor, "n c h w"]) -> Float[np.ndarray, " bands"]:
        """The slope of x_0 on x^_0 in each band.

        Each image is measured from the mean of the others: a prediction that is always the true
        mean then has a slope of 1, although these images' own mean fits them better.
        """
        n = len(self.images)
        if n < 2:
            return np.ones(self.slopes.shape[1])
        members = one_hot(self.bands.flatten()).double()
        products, squares = [], []
        for part in self.parts:
            apart = self.format.to_unit(self.images[part]) - self.mean
            x = self.dct(apart * (n / (n - 1)))
            z = self.dct(pred_xstart[part] - self.mean + apart / (n - 1))
            products.append((x * z).sum(dim=1).flatten(1).double() @ members)
            squares.append((z * z).sum(dim=1).flatten(1).double() @ members)
        return shrunk_slopes(torch.cat(products).cpu().numpy(), torch.cat(squares).cpu().numpy())

    def _correct(
        self, pred_xstart: Float[Tensor, "n c h w"], slopes: Float[Tensor, " bands"]
    ) -> None:
        """What the chain would make of the predictions, in place."""
        gains = slopes.to(self.bands.device)[self.bands] - 1
        for part in self.parts:
            change = gains * self.dct(pred_xstart[part] - self.mean)
            corrected = pred_xstart[part] + self.dct.inverse(change)
            pred_xstart[part] = corrected.clamp(-1, 1) if self.clip else corrected


def shrunk_slopes(products: Float[np.ndarray, "n b"], squares: Float[np.ndarray, "n b"]) -> Array:
    """[b], least-squares slopes, drawn towards 1 by as much as chance would move them from it.

    Args:
        products, squares: of each image: the sum of x z and that of z^2, where x is fitted on z.
    """
    total = squares.sum(axis=0)
    slopes = np.where(total > 0, products.sum(axis=0), 1) / np.where(total > 0, total, 1)
    chance = ((products - slopes * squares) ** 2).sum(axis=0) / (total**2).clip(LEAST)
    proven = 1 - chance / ((slopes - 1) ** 2).clip(LEAST)
    return (1 + proven.clip(0) * (slopes - 1)).clip(0)


def share_and_level(
    own: Float[np.ndarray, "c h w"],
    corrected: Float[np.ndarray, "c h w"],
    spread: Float[np.ndarray, "c h w"],
) -> tuple[float, float]:
    """How the errors of the corrected x_0 follow from those of the network's own and from the
    images' spread; see `Calibration`."""
    towards, gone = np.log(spread / own), np.log(corrected / own)
    towards, gone = towards - towards.mean(), gone - gone.mean()
    share = float(((towards * gone).sum() / max((towards**2).sum(), LEAST)).clip(0, 1))
    return share, float(corrected.mean() / between(own, spread, share).mean())
