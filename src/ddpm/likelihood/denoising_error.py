"""How far a network's predicted x_0 is off, measured once, at some 130 timesteps by default.

Bao et al. 2022 ("Analytic-DPM"): where the predicted x_0 errs by mse(t), the reverse step t -> s
loses least with variance lambda^2 + c^2 mse(t). The same numbers price every step, which is what
`ddpm.likelihood.trajectory` chooses by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import DdpmError, check, whole_number
from ddpm.likelihood.calibration import Calibration
from ddpm.likelihood.calibration_fit import CalibrationFit
from ddpm.likelihood.prediction_error import decoder_bits, interpolated, squared_error
from ddpm.likelihood.spectral_error import SpectralError, SpectralFit
from ddpm.runtime import parallel
from ddpm.runtime.progress import Counter, Progress
from ddpm.runtime.randomness import Randomness

Array = NDArray[np.float64]
IMAGES = 750  # that it is measured on; the table is one for every pixel
DENSE = 48  # every one of the first timesteps is measured, where the error changes fastest
SPACING = 12  # and every 12th of the rest; between them the logarithm is interpolated
POWER = 2.5  # that fewer timesteps rise with: of 1.5 to 3, what 16 of them lose least bits with
MEASURED = 256  # images of 32x32 pixels that are measured in one network call
BAD = "the prediction is not finite: the weights are damaged, or the training diverged"
PREFIX = "denoising_error."  # of its tensors in a checkpoint
UNCALIBRATED = (
    "this model has no calibration of the predicted x_0; measure it once on training images with "
    "`ddpm measure RUN` (--data IMAGES, if it was imported) or model.measure(images)"
)


@dataclass(frozen=True, eq=False)
class DenoisingError:
    """What was measured of a network, at m of the T timesteps of its whole chain.

    Args:
        timesteps: [m], rising, from 0 to T-1.
        xstart_mse: [m, c, h, w], mean squared error of the predicted x_0 for each pixel and
            channel, images in [-1, 1].
        decoder_bpd: [m], cost in bits/dim of the exact pixels under a discretised Gaussian around
            the x_0 predicted at t with that variance: what it costs to end the chain at t.
        images: how many images it was measured on.
        calibration: what a linear fit mends of it; None if it was measured before there was one.
        spectral: the error in colour and frequency instead of pixels; None likewise.

    Raises:
        DdpmError: arrays that do not fit together.
    """

    timesteps: Int[np.ndarray, " m"]
    xstart_mse: Float[np.ndarray, "m ..."]
    decoder_bpd: Float[np.ndarray, " m"]
    images: int
    calibration: Calibration | None = None
    spectral: SpectralError | None = None

    def __post_init__(self) -> None:
        check(
            len(self.timesteps) == len(self.xstart_mse) == len(self.decoder_bpd) > 0
            and bool((np.diff(self.timesteps) > 0).all())
            and bool((self.xstart_mse > 0).all() and np.isfinite(self.xstart_mse).all()),
            "a denoising error needs one positive entry for each of its rising timesteps",
        )
        check(
            self.spectral is None
            or self.spectral.xstart_mse.shape[1:] == self.xstart_mse.shape[1:],
            "a denoising error in pixels and one in colour and frequency must be of equal images",
        )

    def at(self, timesteps: Int[np.ndarray, " k"]) -> Array:
        """[k, c, h, w], `xstart_mse` at any timesteps: its logarithm, interpolated, in float64."""
        return interpolated(timesteps, self.timesteps, self.xstart_mse)

    def decoder_at(self, timesteps: Int[np.ndarray, " k"]) -> Array:
        """[k], `decoder_bpd` at any timesteps, interpolated."""
        return np.interp(timesteps, self.timesteps, self.decoder_bpd)

    @property
    def calibrated(self) -> DenoisingError:
        """The error of the calibrated x_0, as a table of its own.

        Raises:
            DdpmError: the calibration was not measured.
        """
        if self.calibration is None:
            raise DdpmError(UNCALIBRATED)
        calibration, times = self.calibration, self.timesteps
        decoder = np.interp(times, calibration.timesteps, calibration.decoder_bpd)
        rows = zip(times, self.xstart_mse, strict=True)  # a float64 table could take gigabytes
        error = np.stack([calibration.error_at(int(t), own).astype(np.float32) for t, own in rows])
        spectral = None if self.spectral is None else self.spectral.calibrated
        plain = replace(self, calibration=None, spectral=spectral)
        return replace(plain, xstart_mse=error, decoder_bpd=decoder)

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it: float32, some 3 MB for colour images of 32x32 pixels."""
        return {
            **({} if self.calibration is None else self.calibration.tensors()),
            **({} if self.spectral is None else self.spectral.tensors()),
            f"{PREFIX}timesteps": torch.from_numpy(self.timesteps.astype(np.int64)),
            f"{PREFIX}xstart_mse": torch.from_numpy(self.xstart_mse.astype(np.float32)),
            f"{PREFIX}decoder_bpd": torch.from_numpy(self.decoder_bpd.astype(np.float64)),
            f"{PREFIX}images": torch.tensor(self.images),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> DenoisingError | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if it was not measured.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        if not any(name.startswith(PREFIX) for name in tensors):
            return None
        return DenoisingError(
            tensors[f"{PREFIX}timesteps"].numpy(),
            tensors[f"{PREFIX}xstart_mse"].float().numpy(),  # of a shipped model it is bfloat16
            tensors[f"{PREFIX}decoder_bpd"].double().numpy(),
            int(tensors[f"{PREFIX}images"]),
            Calibration.from_tensors(tensors),
            SpectralError.from_tensors(tensors),
        )


def measured_timesteps(total: int, count: int | None = None) -> NDArray[np.int64]:
    """The timesteps at which the error is measured, rising, always with the first and the last.

    Args:
        total: T.
        count: how many, 2..T; they rise as i^2.5, since the error changes fastest at first. By
            default they are some 130 of 1,000: all at first, then every 12th.

    Raises:
        DdpmError: the count is out of range.
    """
    if count is not None:
        check(
            2 <= count <= total,
            f"the number of timesteps must lie in 2..{total}, all that this model has, got {count}",
        )
        count = whole_number("the number of timesteps", count, 2)
        i = np.arange(count)
        steps = ((i / (count - 1)) ** POWER * (total - 1)).round().astype(np.int64)
        steps = np.maximum.accumulate(steps - i) + i  # the first few are pushed apart
        return np.minimum(steps, total - count + i)
    dense = np.arange(min(DENSE, total))
    rest = np.arange(DENSE, total, SPACING)
    return np.unique(np.concatenate([dense, rest, [total - 1]]))


def measure_denoising_error(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
    *,
    timesteps: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> DenoisingError:
    """Measure the error of a network (on the whole chain, not a respaced one), in pixels and in
    colour and frequency, and its calibration.

    Args:
        diffusion: all T steps.
        denoiser: the network.
        images: training images; more of them make it better, 500 or more are advisable.
        image_format: of the images.
        timesteps: at how many it is measured; see `measured_timesteps`.
        batch_size: images in one network call, by default 256 or fewer large ones
            (`ImageFormat.batch`); of several processes each takes some timesteps.
        progress: counts (image, timestep) pairs.

    Raises:
        DdpmError: there are no images, or they are of another format, or a number is out of range.
    """
    check(len(images) > 0, "there are no images to measure the denoising error on")
    batch_size = image_format.batch(MEASURED) if batch_size is None else batch_size
    check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    image_format.check(images)
    times = measured_timesteps(diffusion.num_timesteps, timesteps)
    n, shape, device = len(images), image_format.shape, images.device
    counter = Counter(progress, n * len(times), "denoising error")
    mse = torch.zeros(len(times), *shape)
    decoder = torch.zeros(len(times), dtype=torch.float64)
    fit = CalibrationFit(times, images, image_format, diffusion.clip_sample)
    spectral = SpectralFit(times, images, image_format)
    with torch.inference_mode():
        pred_xstart = torch.empty(n, *shape, device=device)
        for i, timestep in enumerate(times):
            if not parallel.is_mine(i):
                counter.advance(n)
                continue
            for index in torch.arange(n, device=device).split(batch_size):
                x_start = image_format.to_unit(images[index])
                pred_xstart[index] = _predicted(diffusion, denoiser, x_start, index, int(timestep))
                counter.advance(len(index))
            own = squared_error(pred_xstart, images, image_format)
            check(bool(np.isfinite(own).all()), f"at t = {timestep} {BAD}")
            decoder[i] = decoder_bits(pred_xstart, own, images, image_format)
            mse[i] = torch.from_numpy(own)
            before = spectral.squared(pred_xstart)
            mends = fit.add(i, pred_xstart, own, float(decoder[i]))
            spectral.add(i, before, spectral.squared(pred_xstart) if mends else before)
    parallel.all_reduce_sum(mse, decoder, spectral.mse, spectral.kept)
    measured = DenoisingError(times, mse.numpy(), decoder.numpy(), n, fit.collected())
    return replace(measured, spectral=spectral.collected())


def _predicted(
    diffusion: GaussianDiffusion, denoiser: Denoiser, x_start: Tensor, index: Tensor, timestep: int
) -> Tensor:
    """What the network makes of the images `index` at a timestep; the noise depends on the two."""
    t = torch.full((len(index),), timestep, device=x_start.device)
    randomness = Randomness(0, "errors")  # the word decides the numbers
    noise = randomness.normal(index, tuple(x_start.shape[1:]), timestep)
    x_t = diffusion.q_sample(x_start, t, noise)
    return diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart
