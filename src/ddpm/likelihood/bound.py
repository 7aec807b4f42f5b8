"""bits/dim: the whole variational bound over a set of images, term by term (Eq. 5), and what the
paper reads off it: the rate-distortion curve of progressive coding (Figure 5, Table 4).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.images import ImageFormat, Indexed, unit_to_byte_rmse
from ddpm.diffusion.bound_terms import mean_over_dims, prior_bpd, vb_term
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.importance import BoundTimes
from ddpm.errors import check
from ddpm.likelihood.denoising_error import MEASURED
from ddpm.runtime import parallel
from ddpm.runtime.progress import Counter, Progress
from ddpm.runtime.randomness import Randomness

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """The bound of n images under a chain of K steps, in bits per dimension.

    Args:
        total: [n], bits/dim of each image.
        prior: [n], L_T of each.
        terms: [K], means over the images; terms[0] is L_0, terms[i] the KL of the step from time i
            to i-1.
        xstart_mse: [K], mean squared error of the predicted x_0, images in [-1, 1].
        eps_mse: [K], mean squared error of the predicted noise.
        timesteps: [K], the times of the whole chain that were visited.
    """

    total: Array
    prior: Array
    terms: Array
    xstart_mse: Array
    eps_mse: Array
    timesteps: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """bits/dim of the set."""
        return float(self.total.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, over images; not a number for a single one."""
        n = len(self.total)
        return float(self.total.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    def rate_distortion(self) -> dict[str, Array]:
        """Figure 5: what a receiver has paid and sees after each reverse step, [K+1] each.

        Entry j is the state before network call j+1: rate is the sum of all terms received so far
        (bits/dim), rmse and psnr compare the x_0 predicted then with the image on the scale of
        0..255. The last entry is the lossless end: all terms paid, nothing left to see.
        """
        received = self.prior.mean() + np.append(0.0, np.cumsum(self.terms[::-1]))
        mse = np.append(self.xstart_mse[::-1], 0.0)
        rmse = unit_to_byte_rmse(mse)
        with np.errstate(divide="ignore"):
            psnr = 20 * np.log10(255.0 / rmse)
        step = np.append(self.timesteps[::-1] + 1.0, 0.0)
        return {"reverse_step": step.max() - step, "rate": received, "rmse": rmse, "psnr": psnr}


def evaluate_bound(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    images: Indexed,
    image_format: ImageFormat,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Bound:
    """Every term of Eq. 5 for every image, each with one x_t ~ q(x_t | x_0) of its own.

    Args:
        diffusion: the model; respaced, it gives the bound of the K-step model.
        denoiser: the network.
        images: a uint8 tensor [n, c, h, w] or a data source, of which one batch is read at a time;
            no image is dropped, no noise is added.
        image_format: of the images.
        seed: decides the x_t. The noise depends on (seed, image, t), not on the batch size.
        batch_size: images in one network call, 256 by default, or fewer large ones; of several
            processes each takes some of the calls.
        device: where the network is; that of the images by default.
        progress: counts (image, step) pairs, here or elsewhere.

    Raises:
        DdpmError: there are no images, or they are of another format.
    """
    n, steps = len(images), diffusion.num_timesteps
    check(n > 0, "there are no images to evaluate")
    batch_size = image_format.batch(MEASURED) if batch_size is None else batch_size
    check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    randomness = Randomness(seed, "bound")
    sums = torch.zeros(3, steps, dtype=torch.float64)  # of terms, errors of x_0 and of eps
    total = torch.zeros(n, dtype=torch.float64)
    prior = torch.zeros(n, dtype=torch.float64)
    calls = itertools.count()  # dealt out to the processes one by one
    counter = Counter(progress, n * steps, "bits/dim")
    with torch.inference_mode():
        for rows in torch.arange(n).chunk(-(-n // batch_size)):
            batch = images[rows]
            image_format.check(batch)
            x_start = image_format.to_unit(batch.to(device or batch.device))
            index = rows.to(x_start.device)
            prior[rows] = prior_bpd(diffusion, x_start).double().cpu()
            measured = torch.zeros(3, len(rows), steps, dtype=torch.float64)
            for i, timestep in enumerate(diffusion.schedule.timesteps):
                if parallel.is_mine(next(calls)):
                    noise = randomness.normal(index, image_format.shape, int(timestep))
                    found = _measure(diffusion, denoiser, x_start, noise, i, image_format.levels)
                    measured[:, :, i] = found.cpu()
                counter.advance(len(index))
            parallel.all_reduce_sum(measured)  # so that every process adds up in the same order
            total[rows] = prior[rows] + measured[0].sum(dim=1)
            sums += measured.sum(dim=1)
    terms, xstart_mse, eps_mse = (sums / n).numpy()
    times = diffusion.schedule.timesteps
    return Bound(total.numpy(), prior.numpy(), terms, xstart_mse, eps_mse, times)


def _measure(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x_start: Tensor,
    noise: Tensor,
    i: int,
    grey_levels: int,
) -> Float[Tensor, "3 b"]:
    """The term of time index i, and the squared errors of the predicted x_0 and noise."""
    t = torch.full((len(x_start),), i, device=x_start.device)
    x_t = diffusion.q_sample(x_start, t, noise)
    term, p = vb_term(diffusion, denoiser, x_start, x_t, t, grey_levels)
    epsilon = diffusion.epsilon_from_xstart(p.pred_xstart, x_t, t)
    xstart_mse = mean_over_dims((x_start - p.pred_xstart) ** 2)
    return torch.stack([term, xstart_mse, mean_over_dims((noise - epsilon) ** 2)]).double()


def stratified_bound(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    images: UInt8[Tensor, "n c h w"],
    image_format: ImageFormat,
    *,
    draws: int = 8,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """An unbiased estimate of each image's bits/dim from a few t, for use while training.

    L_0, which is large, is always computed. The other t are drawn as often as the bound weighs
    them, one from each of `draws` - 1 stretches of equal weight.

    Args:
        diffusion, denoiser: the model.
        images: grey levels of this format.
        image_format: of the images.
        draws: network calls an image takes, 2..T.
        seed: decides the noise and the t.

    Returns:
        bits/dim of each image.

    Raises:
        DdpmError: `draws` is out of range.
    """
    steps = diffusion.num_timesteps
    check(min(2, steps) <= draws <= steps, f"draws must lie in {min(2, steps)}..{steps}")
    index = torch.arange(len(images), device=images.device)
    x_start, shape = image_format.to_unit(images), tuple(images.shape[1:])
    times = BoundTimes(diffusion.schedule, images.device)
    uniform, noise = Randomness(seed, "stratified time"), Randomness(seed, "stratified noise")

    def term(t: Tensor, draw: int) -> Tensor:
        x_t = diffusion.q_sample(x_start, t, noise.normal(index, shape, draw))
        return vb_term(diffusion, denoiser, x_start, x_t, t, image_format.levels)[0]

    with torch.inference_mode():
        total = prior_bpd(diffusion, x_start) + term(torch.zeros_like(index), 0)
        first = times.probability[0]
        for draw in range(1, draws):
            quantile = (draw - 1 + uniform.uniform(index, draw)) / (draws - 1)
            t = times.at(first + (1 - first) * quantile)
            expected_draws = (draws - 1) * times.probability[t] / (1 - first)
            total = total + (term(t, draw) / expected_draws).float()
    return total
