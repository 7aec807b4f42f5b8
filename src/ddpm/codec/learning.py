"""How a model learns what compression needs besides its network (`codec.coding`)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.codec.coding import Coding
from ddpm.codec.fit_last_stage import fit_last_stage, usual_recipe
from ddpm.codec.last_stage import LastStage
from ddpm.codec.parts import tiles_of_a_part
from ddpm.codec.planning import Errors, choose_route
from ddpm.codec.snapping import MARGIN
from ddpm.codec.window_pool import BATCH
from ddpm.data.images import ImageFormat, Indexed
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import DdpmError, check, whole_number
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.spectral_error import UNROTATED
from ddpm.runtime.device import exact_arithmetic
from ddpm.runtime.progress import Progress
from ddpm.runtime.randomness import Randomness

NOISES = (8, 16, 32, 64)  # standard deviations in bytes at which the last stage is trained
PRICED, DRIFTED = 64, 8  # images that the last stage's costs, and the drift, are measured on
SAFETY = 20  # times the largest drift seen, at least, is the margin
KERNELS = torch.backends.mkldnn, torch.backends.cudnn
STEPS, MORE = 3000, 4  # of the training for 8x8 grey pixels, and per value above these


def usual_steps(image_format: ImageFormat) -> int:
    """Of the last stage's training by default: 3,000 for digits, 15,000 for CIFAR-10."""
    return STEPS + MORE * max(0, min(math.prod(image_format.shape), 3072) - 64)


def steps_after(trained: int, given: int | None, image_format: ImageFormat) -> int:
    """Of the last stage's training after so many of the network's, if it is not given."""
    return min(usual_steps(image_format), 2 * trained) if given is None else given


def network_calls(image_format: ImageFormat, steps: int) -> int:
    """On an image each, to learn a coding, from as many images as the pool holds; at the most."""
    if steps == 0:
        return 0
    recipe, many = usual_recipe(image_format), len(NOISES)
    drawn = recipe.pool + BATCH * (steps // recipe.renew)
    return drawn + PRICED * (2 * many - 1) + 2 * DRIFTED * many


def knots(schedule: NoiseSchedule) -> tuple[int, ...]:
    """The timesteps between which the last stage can take over: those of NOISES."""
    with np.errstate(divide="ignore"):  # of chains that end in nothing but noise
        noise = 127.5 / np.sqrt(schedule.snr)
    return tuple(sorted({int(np.abs(noise - wanted).argmin()) for wanted in NOISES}))


def learn_coding(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    error: DenoisingError,
    image_format: ImageFormat,
    images: Indexed,
    *,
    device: torch.device,
    steps: int | None = None,
    stage: LastStage | None = None,
    progress: Progress | None = None,
) -> Coding:
    """Train the last stage, and choose the route of a single image.

    Args:
        diffusion: the whole chain.
        denoiser: the network as it is called, in fp32.
        error: of the network, in colour and frequency too.
        image_format: of the images.
        images: to train on; the last of them, of 128 or more, only say what a pixel costs.
        steps: of the training; chosen by the images' format by default.
        stage: one that was trained elsewhere, instead of a training.
        device, progress: where the network is; counts the steps.

    Raises:
        DdpmError: an error not measured in colour and frequency, other images or none, no number.
    """
    if error.spectral is None:
        raise DdpmError(UNROTATED)
    check(len(images) > 0, "there are no images to learn the coding of exact pixels from")
    if steps is not None:
        steps = whole_number("the number of steps", steps, 1)
    kept = PRICED if len(images) >= 2 * PRICED else 0
    ends = knots(diffusion.schedule)

    def predict(batch: UInt8[Tensor, "b c h w"], timestep: int, number: int) -> Tensor:
        image_format.check(batch)
        noise = Randomness(number, "last stage").normal(
            torch.arange(len(batch), device=device), image_format.shape
        )
        t = torch.full((len(batch),), timestep, device=device)
        with torch.inference_mode(), exact_arithmetic():
            x_t = diffusion.q_sample(image_format.to_unit(batch.to(device)), t, noise)
            return diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart

    if stage is None:
        stage = fit_last_stage(
            _But(images, len(images) - kept),
            image_format,
            predict,
            ends,
            steps=usual_steps(image_format) if steps is None else steps,
            device=device,
            progress=progress,
        )
    with torch.inference_mode(), exact_arithmetic():
        drift = _drift(diffusion, denoiser, images, image_format, device)
    priced = images[torch.arange(max(0, len(images) - PRICED), len(images))].cpu()
    costs = {t: _cost(stage, priced, predict(priced, t, 0).cpu(), t) for t in _with_middles(ends)}
    return _cheapest(stage, diffusion.schedule, error, image_format, costs, SAFETY * drift)


def _with_middles(ends: tuple[int, ...]) -> list[int]:
    """Rising timesteps with one between any two, in even proportion."""
    return sorted({*ends} | {round(math.sqrt(a * b)) for a, b in itertools.pairwise(ends)})


def _cheapest(
    stage: LastStage,
    schedule: NoiseSchedule,
    error: DenoisingError,
    image_format: ImageFormat,
    ends: dict[int, float],
    margin: float,
) -> Coding:
    """With the variances that make an archive smaller, and the route that makes one image so."""
    assert error.spectral is not None
    tables: tuple[Errors, Errors] = error, error.spectral
    full = tiles_of_a_part(image_format.shape)
    costs = [choose_route(schedule, table, ends, full).bpd for table in tables]
    better = costs[1] <= costs[0]
    route = choose_route(schedule, tables[better], ends, 1).route
    return Coding(stage, better, route, ends, max(MARGIN, margin))


def _cost(
    stage: LastStage,
    images: UInt8[Tensor, "n c h w"],
    xstart: Float[Tensor, "n c h w"],
    timestep: int,
) -> float:
    """Bits/dim of the last stage."""
    bits: NDArray[np.float64] = stage.bits(list(images), list(xstart), timestep)
    return float(bits.sum() / images.numel())


def _drift(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    images: Indexed,
    image_format: ImageFormat,
    device: torch.device,
) -> float:
    """How far, in bytes, a predicted x_0 is from that of other kernels, at the most.

    oneDNN and cuDNN are left out, whose sums go another way than PyTorch's own, as those of another
    processor do. What a chain adds does not grow along it, so that a call at every knot tells.
    """
    batch = image_format.to_unit(images[torch.arange(min(DRIFTED, len(images)))].to(device))
    noise = Randomness(0, "drift").normal(torch.arange(len(batch), device=device), batch.shape[1:])
    worst = 0.0
    for timestep in knots(diffusion.schedule):
        t = torch.full((len(batch),), timestep, device=device)
        x_t = diffusion.q_sample(batch, t, noise)
        found = diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart
        before = [kind.set_flags(False)[0] for kind in KERNELS]
        try:
            other = diffusion.p_mean_variance(denoiser, x_t, t).pred_xstart
        finally:
            for kind, enabled in zip(KERNELS, before, strict=True):
                kind.set_flags(enabled)
        worst = max(worst, 127.5 * float((found - other).abs().max()))
    return worst


class _But:
    """The first images of a source.

    Args:
        images: all of them.
        count: how many.
    """

    def __init__(self, images: Indexed, count: int) -> None:
        self.images, self.count = images, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[index]
