"""Which few timesteps to visit: evenly, quadratically, or the cheapest by dynamic programming.

With the analytic variance a step t -> s costs d/2 log2(1 + c^2 mse(t) / lambda^2) bits, and
costs add up along a trajectory, so the best one of K steps is a shortest path (Watson et al. 2021,
with the prices of Bao et al. 2022).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import DdpmError, check
from ddpm.likelihood.denoising_error import ErrorTable

Array = NDArray[np.float64]
Steps = NDArray[np.int64]
TRAJECTORIES = ("even", "quadratic", "optimal")
GROUPS = 64  # of pixels with similar errors, each priced as one


def step_costs(schedule: NoiseSchedule, xstart_mse: Array) -> Array:
    """[T, T]: expected bits/dim of the step from t (row) to s < t (column); inf elsewhere.

    Args:
        schedule: the whole chain.
        xstart_mse: [T, ...], error of the predicted x_0 at each t, per pixel or not. Of many
            pixels those with similar errors are priced together, at their mean error.
    """
    abar, total = schedule.alphas_cumprod, len(schedule)
    ordered = np.sort(xstart_mse.reshape(total, -1), axis=1)
    groups = np.array_split(ordered, min(GROUPS, ordered.shape[1]), axis=1)
    mse = np.stack([group.mean(axis=1) for group in groups], axis=1)
    weights = np.array([group.shape[1] for group in groups]) / ordered.shape[1]
    costs = np.full((total, total), np.inf)
    for t in range(1, total):
        s = np.arange(t)
        # c^2 / lambda^2 = snr(s) - snr(t) for the posterior q(x_s | x_t, x_0), snr = abar/(1-abar)
        gain = abar[s] / (1 - abar[s]) - abar[t] / (1 - abar[t])
        costs[t, :t] = 0.5 * np.log2(1 + gain[:, None] * mse[t][None]) @ weights
    return costs


def optimal_timesteps(schedule: NoiseSchedule, errors: ErrorTable, k: int) -> Steps:
    """The k timesteps of the cheapest trajectory: from T-1 down, then the exact pixels."""
    check_count(k, len(schedule))
    costs = step_costs(schedule, errors.xstart_mse)
    best, choices = errors.decoder_bpd.copy(), []
    for _ in range(k - 1):
        through = costs + best[None, :]
        choice = through.argmin(axis=1)
        choices.append(choice)
        best = np.take_along_axis(through, choice[:, None], axis=1)[:, 0]
    steps = [len(schedule) - 1]
    for choice in reversed(choices):
        steps.append(int(choice[steps[-1]]))
    return np.array(steps[::-1])


def predicted_bpd(schedule: NoiseSchedule, errors: ErrorTable, timesteps: Steps) -> float:
    """What a trajectory should cost by the tables, without the prior's share, in bits/dim."""
    costs = step_costs(schedule, errors.xstart_mse)
    pairs = zip(timesteps[1:], timesteps[:-1], strict=True)
    return float(errors.decoder_bpd[timesteps[0]] + sum(costs[t, s] for t, s in pairs))


def quadratic_timesteps(total: int, k: int) -> Steps:
    """k timesteps whose square roots are evenly spaced: denser near the image."""
    check_count(k, total)
    if k == 1:
        return np.array([total - 1])
    steps = (np.linspace(0, np.sqrt(total - 1), k) ** 2).round().astype(np.int64)
    for i in range(1, k):  # the first few round to the same number: push them apart
        steps[i] = max(steps[i], steps[i - 1] + 1)
    return np.minimum(steps, total - k + np.arange(k))


def check_count(k: int, total: int) -> None:
    """Refuse a number of steps that the chain does not have."""
    check(1 <= k <= total, f"the number of steps must lie in 1..{total}, got {k}")


def choose_timesteps(
    name: str, schedule: NoiseSchedule, k: int, errors: ErrorTable | None = None
) -> Steps:
    """The trajectory called `name` with k timesteps.

    Raises:
        DdpmError: an unknown name, k out of range, or no error table for `optimal`.
    """
    if name == "even":
        return schedule.even_timesteps(k)
    if name == "quadratic":
        return quadratic_timesteps(len(schedule), k)
    if name == "optimal":
        if errors is None:
            raise DdpmError("an optimal trajectory needs the measured errors of the model")
        return optimal_timesteps(schedule, errors, k)
    raise DdpmError(f"unknown trajectory '{name}'; choose from {', '.join(TRAJECTORIES)}")
