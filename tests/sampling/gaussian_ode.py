"""The probability-flow ODE of normally distributed data, whose solution is known."""

import math

import numpy as np
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule

VARIANCES = torch.tensor([0.04, 0.3, 1.0, 0.001], dtype=torch.float64).reshape(1, 1, 2, 2)
FINE = make_schedule("linear", 20_000, 5e-6, 1e-3)  # the paper's, cut finer
STEPS = (10, 20, 40, 80, 160)
FIRST, LAST = 0.9, 0.05  # where in time the ODE is followed


def spread(t):
    """The standard deviations of x_t, data from N(0, VARIANCES); the solution grows with them."""
    abar = FINE.alphas_cumprod[t]
    return torch.sqrt(abar * VARIANCES + 1 - abar)


def optimal_x_start(x, t):
    """E[x_0 | x_t]."""
    abar = float(FINE.alphas_cumprod[int(t[0])])
    return math.sqrt(abar) * VARIANCES / (abar * VARIANCES + 1 - abar) * x


def errors_of_halved_steps(sampler):
    """How far the x that a sampler reaches is off, for each of STEPS of equal length in lambda.

    The last one is not looked at: it goes to lambda = infinity.
    """
    whole = GaussianDiffusion(FINE, "sample", clip_sample=False)
    place = np.log(FINE.snr)
    ends = [place[int(part * FINE.num_timesteps)] for part in (LAST, FIRST)]
    start = torch.randn(8, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for steps in STEPS:
        wanted = np.linspace(*ends, steps + 1)
        visited = [int(np.abs(place - value).argmin()) for value in wanted]
        seen = []
        sampler(whole.respace(visited), optimal_x_start, start, no_noise, callback=seen.append)
        exact = start * spread(visited[0]) / spread(visited[-1])
        errors.append(float((seen[-1].x_t - exact).abs().max()))
    return errors


def no_noise(index):
    """For samplers that add none."""
    raise AssertionError(f"noise was asked for at time index {index}")
