"""How far predicted x_0 are off the images: a mean square for each pixel, and its price in bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.diffusion.bound_terms import discretized_gaussian_log_likelihood

Array = NDArray[np.float64]
Tensors = dict[str, Tensor]


def shrink(per_pixel: Array, images: int) -> Array:
    """Per-pixel errors as if one more image had been seen that errs by the mean everywhere.

    A pixel that never erred on the images measured may still err on the next; without this its
    variance would be almost 0 and its first error would cost any number of bits.

    Args:
        per_pixel: mean squared errors over `images` images.
        images: how many.
    """
    return ((images * per_pixel + per_pixel.mean()) / (images + 1)).clip(1e-12, 1.0)


def squared_error(
    predicted: Float[Tensor, "#n c h w"],
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
) -> Float[np.ndarray, "c h w"]:
    """Mean squared error at each pixel, shrunk.

    Of large images a part is taken at a time: float64 copies of all are many times their size.

    Args:
        predicted: of each image, or one for all, in [-1, 1].
        images: grey levels.
        image_format: of the images.
    """
    n, device = len(images), images.device
    predicted = predicted.expand(n, *image_format.shape)
    squared = torch.zeros(image_format.shape, dtype=torch.float64, device=device)
    for part in torch.arange(n, device=device).split(image_format.batch(n)):
        difference = image_format.to_unit(images[part]) - predicted[part]
        squared += len(part) / n * (difference**2).double().mean(dim=0)
    return shrink(squared.cpu().numpy(), n)


def decoder_bits(
    predicted: Float[Tensor, "n c h w"],
    mse: Float[np.ndarray, "c h w"],
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
) -> float:
    """Bits/dim of the exact pixels under a discretised Gaussian of variance `mse` around x^_0."""
    n, device, nats = len(images), images.device, 0.0
    log_scale = 0.5 * torch.from_numpy(np.log(mse)).to(device)
    for part in torch.arange(n, device=device).split(image_format.batch(n)):
        likelihood = discretized_gaussian_log_likelihood(
            image_format.to_unit(images[part]), predicted[part], log_scale, image_format.levels
        )
        nats -= len(part) / n * float(likelihood.mean())
    return nats / np.log(2)


def interpolated(
    timesteps: Int[np.ndarray, " k"],
    known: Int[np.ndarray, " m"],
    table: Float[np.ndarray, "m ..."],
) -> Array:
    """[k, ...], a table of positive numbers at any timesteps: its logarithm, interpolated, float64.

    Args:
        timesteps: any; those beyond the first and the last known have its numbers.
        known: timesteps of the table, rising.
        table: a row for each of them.
    """
    if len(known) == 1:
        return np.repeat(table.astype(np.float64), len(timesteps), axis=0)
    right = np.searchsorted(known, timesteps).clip(1, len(known) - 1)
    low, high = known[right - 1], known[right]
    weight = ((timesteps - low) / (high - low)).clip(0, 1)
    weight = weight.reshape(-1, *[1] * (table.ndim - 1))
    before = np.log(table[right - 1].astype(np.float64))
    after = np.log(table[right].astype(np.float64))
    return np.exp(before + weight * (after - before))


def stored(prefix: str, timesteps: Int[np.ndarray, " m"], tables: dict[str, np.ndarray]) -> Tensors:
    """Tables over timesteps as a checkpoint holds them: float32, under names with a prefix."""
    found = {name: torch.from_numpy(table.astype(np.float32)) for name, table in tables.items()}
    found["timesteps"] = torch.from_numpy(timesteps.astype(np.int64))
    return {f"{prefix}{name}": tensor for name, tensor in found.items()}


def restored(prefix: str, names: Sequence[str], tensors: Tensors) -> list[np.ndarray] | None:
    """The inverse of `stored`: the timesteps, then the tables of these names, float32.

    Returns:
        None if no tensor has the prefix.

    Raises:
        KeyError: some have it, but not all.
    """
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if not found:
        return None
    return [found["timesteps"].numpy(), *(found[name].float().numpy() for name in names)]
