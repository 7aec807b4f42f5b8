"""The network's errors, measured once, and the reverse variance that is best for them.

Bao et al. 2022 ("Analytic-DPM"): where the predicted x_0 errs by mse(t), the reverse step t -> s
loses least with variance lambda^2 + c^2 mse(t). The same table prices every step, which is what
`ddpm.likelihood.trajectory` chooses by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.images import to_unit_range
from ddpm.diffusion.bound_terms import discretized_gaussian_log_likelihood
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check
from ddpm.runs.checkpoint import load_checkpoint, save_checkpoint
from ddpm.runtime import parallel
from ddpm.runtime.randomness import Randomness

Array = NDArray[np.float64]
DENSE = 48  # every one of the first timesteps is measured, where the error changes fastest
SPACING = 12  # and every 12th of the rest; between them the logarithm is interpolated


@dataclass(frozen=True)
class ErrorTable:
    """What is known of a network's errors at every timestep of the whole chain.

    Args:
        xstart_mse: [T, c, h, w], mean squared error of the predicted x_0 for each pixel and
            channel, images in [-1, 1].
        decoder_bpd: [T], cost in bits/dim of the exact pixels under a discretised Gaussian around
            the x_0 predicted at t with that variance: what it costs to end the chain at t.
        images: how many images were measured.
    """

    xstart_mse: Array
    decoder_bpd: Array
    images: int

    def save(self, path: Path, model: str) -> None:
        """Write the table beside a checkpoint; `model` is the checkpoint's checksum."""
        tensors = {
            "xstart_mse": torch.from_numpy(self.xstart_mse),
            "decoder_bpd": torch.from_numpy(self.decoder_bpd),
        }
        save_checkpoint(path, tensors, {"model": model, "images": self.images})


def load_errors(path: Path, model: str) -> ErrorTable | None:
    """The table at `path` if it belongs to the checkpoint with checksum `model`, else None."""
    if not path.is_file():
        return None
    tensors, metadata = load_checkpoint(path)
    if metadata.get("model") != model:
        return None
    table = tensors["xstart_mse"].double().numpy()  # of a shipped model it is bfloat16
    decoder = tensors["decoder_bpd"].double().numpy()
    return ErrorTable(table, decoder, int(metadata["images"]))


def measured_timesteps(total: int) -> NDArray[np.int64]:
    """The timesteps at which the errors are measured: dense at first, then every 12th."""
    dense = np.arange(min(DENSE, total))
    rest = np.arange(DENSE, total, SPACING)
    return np.unique(np.concatenate([dense, rest, [total - 1]]))


def shrink(per_pixel: Array, images: int) -> Array:
    """Per-pixel errors as if one more image had been seen that errs by the mean everywhere.

    A pixel that never erred on the images measured may still err on the next; without this its
    variance would be almost 0 and its first error would cost any number of bits.
    """
    mean = per_pixel.mean(axis=tuple(range(1, per_pixel.ndim)), keepdims=True)
    return np.minimum((images * per_pixel + mean) / (images + 1), 1.0)  # x_0 spans [-1, 1]


def measure_errors(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    images: UInt8[Tensor, "n c h w"],
    grey_levels: int,
    *,
    seed: int = 0,
    batch_size: int = 256,
    callback: Callable[[int], None] | None = None,
) -> ErrorTable:
    """Measure the errors on training images (the whole chain, not a respaced one).

    Args:
        images: more images make the per-pixel table better; 500 or more are advisable.
        seed: decides the noise.
        callback: called with the number of (image, timestep) pairs just done.
    """
    check(len(images) > 0, "there are no images to measure the errors on")
    source = Randomness(seed, "errors")
    times = measured_timesteps(diffusion.num_timesteps)
    n, shape = len(images), tuple(images.shape[1:])
    x_start = to_unit_range(images, grey_levels)
    mse = torch.zeros(len(times), *shape, dtype=torch.float64)
    decoder = torch.zeros(len(times), dtype=torch.float64)
    with torch.inference_mode():
        for i, timestep in enumerate(times):
            if not parallel.is_mine(i):
                if callback is not None:
                    callback(n)
                continue
            predicted = []
            for index in torch.arange(n, device=images.device).split(batch_size):
                t = torch.full((len(index),), int(timestep), device=images.device)
                noise = source.normal(index, shape, int(timestep))
                x_t = diffusion.q_sample(x_start[index], t, noise)
                predicted.append(diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart)
                if callback is not None:
                    callback(len(index))
            pred_xstart = torch.cat(predicted)
            squared = ((x_start - pred_xstart) ** 2).double().mean(dim=0).cpu().numpy()
            shrunk = shrink(squared[None], n)[0]
            log_scale = 0.5 * torch.from_numpy(np.log(shrunk)).to(images.device)
            nats = -discretized_gaussian_log_likelihood(
                x_start, pred_xstart, log_scale, grey_levels
            )
            mse[i] = torch.from_numpy(shrunk)
            decoder[i] = float(nats.mean()) / np.log(2)
    parallel.merge(mse, decoder)
    whole = np.arange(diffusion.num_timesteps)
    log_mse = np.log(mse.numpy()).reshape(len(times), -1)
    filled = np.stack([np.interp(whole, times, column) for column in log_mse.T], axis=1)
    table = np.exp(filled).reshape(len(whole), *shape)
    return ErrorTable(table, np.interp(whole, times, decoder.numpy()), n)
