"""Terms of the variational bound: Gaussian KL, discrete decoder, L_{t-1}, L_0 (Eq. 5, 13)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.special import log_ndtr

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, PMeanVariance

Images = Float[Tensor, "b *dims"]
PerImage = Float[Tensor, " b"]


def mean_over_dims(x: Images) -> PerImage:
    """Mean over everything but the batch."""
    return x.flatten(1).mean(dim=1)


def normal_kl(mean1: Tensor, logvar1: Tensor, mean2: Tensor, logvar2: Tensor) -> Tensor:
    """KL(N(mean1, e^logvar1) || N(mean2, e^logvar2)) for each number, in nats; broadcasts."""
    difference = logvar1 - logvar2
    squares = (mean1 - mean2) ** 2 * torch.exp(-logvar2)
    return 0.5 * (-1.0 - difference + torch.exp(difference) + squares)


def discretized_gaussian_log_likelihood(
    x: Tensor, means: Tensor, log_scales: Tensor, grey_levels: int = 256
) -> Tensor:
    """log of the Gaussian's mass in the bin of each pixel (Eq. 13), in nats.

    The bins have half-width 1 / (grey_levels - 1), open at both ends; their masses sum to 1.
    Computed in float64 through log Phi, on the side of the mean where it is accurate, so that it
    stays finite and right far out in the tails.

    Args:
        x: pixels on the grid of grey levels over [-1, 1].
        means, log_scales: of the Gaussian, broadcasting against x; log_scales = log sigma.
        grey_levels: how many values a pixel can take.
    """
    x, means, log_scales = x.double(), means.double(), log_scales.double()
    half = 1.0 / (grey_levels - 1)
    inverse = torch.exp(-log_scales)
    a, b = (x - half - means) * inverse, (x + half - means) * inverse
    lower_open, upper_open = x < -1 + half, x > 1 - half
    # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): choose the side on which both are small.
    flip = upper_open | (~lower_open & (a + b > 0))
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    # An open end takes away nothing; a finite stand-in for it keeps the gradient finite.
    is_open = lower_open | upper_open
    gap = torch.where(is_open, -1.0, log_ndtr(a) - log_ndtr(b))
    return log_ndtr(b) + torch.where(is_open, 0.0, torch.log(-torch.expm1(gap)))


def vb_term(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x_start: Images,
    x_t: Images,
    t: Int[Tensor, " b"],
    grey_levels: int = 256,
) -> tuple[PerImage, PMeanVariance]:
    """One term of Eq. 5 for each image, in bits per dimension: L_{t-1}, or L_0 where t = 0."""
    p = diffusion.p_mean_variance(denoiser, x_t, t)
    return vb_term_from_p(diffusion, p, x_start, x_t, t, grey_levels), p


def vb_term_from_p(
    diffusion: GaussianDiffusion,
    p: PMeanVariance,
    x_start: Images,
    x_t: Images,
    t: Int[Tensor, " b"],
    grey_levels: int,
) -> PerImage:
    """The same for a reverse step that has been computed already.

    The posterior is isotropic, so that its KL is a sum over the coordinates of any rotation, too.
    """
    mean, _, log_variance = diffusion.q_posterior_mean_variance(x_start, x_t, t)
    apart = diffusion.rotate(mean - p.mean)
    kl = mean_over_dims(normal_kl(apart, log_variance, torch.zeros_like(apart), p.log_variance))
    if not bool((t == 0).any()):
        return kl / math.log(2)
    decoder = mean_over_dims(
        -discretized_gaussian_log_likelihood(x_start, p.mean, 0.5 * p.log_variance, grey_levels)
    )
    return torch.where(t == 0, decoder.to(kl.dtype), kl) / math.log(2)


def prior_bpd(diffusion: GaussianDiffusion, x_start: Images) -> PerImage:
    """L_T = KL(q(x_T | x_0) || N(0, I)) for each image, in bits per dimension (Eq. 5)."""
    t = torch.full((len(x_start),), diffusion.num_timesteps - 1, device=x_start.device)
    mean, _, log_variance = diffusion.q_mean_variance(x_start, t)
    zero = torch.zeros_like(mean)
    return mean_over_dims(normal_kl(mean, log_variance, zero, zero)) / math.log(2)
