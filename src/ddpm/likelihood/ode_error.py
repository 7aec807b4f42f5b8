"""How far a step of the probability-flow ODE is off, from the denoising error alone.

Take the data as normal: modes (frequencies, for instance) of variance c, of which every number
has a share rho(c). Those of x_t have variance r_t^2 = alpha_t^2 c + sigma_t^2, the best network
predicts D_t = (alpha_t c / r_t^2) x_t, and it errs by

    mse(t) = sum over c of rho(c) c sigma_t^2 / r_t^2,

which `spectrum` solves for rho. The ODE moves a mode along x_t = r_t z with z fixed, and a step of
DDIM leads from r_t z to q r_s z, where q should be 1:

    q r_s = (sigma_s / sigma_t) r_t + (alpha_s - alpha_t sigma_s / sigma_t) alpha_t c / r_t.

Exact steps afterwards keep the factor q, so a mode of the image is off by (q - 1) sqrt(c) z. The
price of a step is the root of sum rho c^(1/2) (q - 1)^2. With c instead of its root that would be
the error of the pixels, nearly all of it in the coarsest modes; with 1 that of every mode in its
own size, most of them finer than a picture shows; half-way draws best. By Minkowski's inequality
all steps together are off by at most the sum of their prices, and the least sum is looked for.
Solvers of order two err less in the same places, and do best with the same timesteps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.likelihood.denoising_error import DenoisingError

Array = NDArray[np.float64]
VARIANCES = np.logspace(-6, 4, 31)  # of modes: below a grey level, to what large images share
POWER = 0.5  # of a mode's variance in the price
ROUNDS = 1000  # of the fit, by which it has settled


def spectrum(schedule: NoiseSchedule, error: DenoisingError) -> Array:
    """rho, [31], the shares of modes of `VARIANCES`.

    Fitted by the rule of Richardson and Lucy to the relative error at every measured timestep: the
    shares stay positive and smooth.

    Args:
        schedule: the whole chain.
        error: of the network.
    """
    abar = schedule.alphas_cumprod[error.timesteps][:, None]
    mse = np.array([row.mean(dtype=np.float64) for row in error.xstart_mse])[:, None]
    of_mode = VARIANCES * (1 - abar) / (abar * VARIANCES + 1 - abar) / mse
    shares = np.full(len(VARIANCES), 1 / len(VARIANCES))
    for _ in range(ROUNDS):
        shares = shares * of_mode.sum(axis=0) / (of_mode.T @ (of_mode @ shares))
    return shares


def ode_costs(schedule: NoiseSchedule, error: DenoisingError) -> tuple[Array, Array]:
    """The prices of all steps of a chain.

    Args:
        schedule: the whole chain.
        error: of the network.

    Returns:
        [T, T], of the step from t (row) to s < t (column), inf elsewhere; and [T], of the step from
        t to the image.
    """
    total, variances = schedule.num_timesteps, VARIANCES[:, None]
    weights = spectrum(schedule, error) * VARIANCES**POWER
    # The image itself comes last.
    alpha = np.append(schedule.sqrt_alphas_cumprod, 1.0)
    sigma = np.append(schedule.sqrt_one_minus_alphas_cumprod, 0.0)
    root = np.sqrt(alpha**2 * variances + sigma**2)
    costs = np.full((total, total + 1), np.inf)
    for t in range(total):
        s = np.append(np.arange(t), total)
        shrunk, start = sigma[s] / sigma[t], root[:, t : t + 1]
        predicted = alpha[t] * variances / start
        factors = (shrunk * start + (alpha[s] - alpha[t] * shrunk) * predicted) / root[:, s]
        costs[t, s] = np.sqrt(weights @ (factors - 1) ** 2)
    return costs[:, :total], costs[:, total]
