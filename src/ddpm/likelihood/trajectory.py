"""Which few timesteps to visit: evenly, quadratically, or the cheapest by dynamic programming.

With the analytic variance a step t -> s costs d/2 log2(1 + c^2 mse(t) / lambda^2) bits, and
costs add up along a trajectory, so the best one of K steps is a shortest path (Watson et al. 2021,
with the prices of Bao et al. 2022). With the spectral variance the errors of coordinates take the
place of those of pixels. Samplers without noise have another price, how far a step takes
the image from where the ODE leads (`ddpm.likelihood.ode_error`), and another shortest path.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import DdpmError, check
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.ode_error import ode_costs
from ddpm.likelihood.spectral_error import UNROTATED, SpectralError

Array = NDArray[np.float64]
Timesteps = NDArray[np.int64]
GROUPS = 64  # of pixels with similar errors, each priced as one


def step_bits(gain: Array | float, mse: Array) -> Array:
    """Expected bits of a reverse step with the analytic variance, for each number.

    Args:
        gain: c^2 / lambda^2 of the posterior q(x_s | x_t, x_0), which is snr(s) - snr(t).
        mse: error of the predicted x_0 at t, images in [-1, 1]; broadcasts against `gain`.
    """
    return 0.5 * np.log2(1 + gain * mse)


@lru_cache(maxsize=2)  # the errors of a model in both kinds of coordinates
def step_costs(schedule: NoiseSchedule, error: DenoisingError | SpectralError) -> Array:
    """[T, T]: expected bits/dim of the step from t (row) to s < t (column); inf elsewhere.

    Of many pixels, or coordinates, those with similar errors are priced together, at their mean.
    The table is kept for the next call with the same objects, and can't be written to.

    Args:
        schedule: the whole chain.
        error: of the network, at each of its timesteps; in pixels, or in colour and frequency.
    """
    total, snr = schedule.num_timesteps, schedule.snr
    grouped = of_equal_size if isinstance(error, DenoisingError) else of_equal_ratio
    costs = np.full((total, total), np.inf)
    for t in range(1, total):
        ordered = np.sort(error.at(np.array([t])).reshape(-1))
        begins = grouped(ordered)
        sizes = np.diff(begins, append=ordered.size)
        mse = np.add.reduceat(ordered, begins) / sizes
        weights = sizes / sizes.sum()
        costs[t, :t] = step_bits((snr[:t] - snr[t])[:, None], mse[None]) @ weights
    costs.setflags(write=False)
    return costs


def of_equal_size(ordered: Array) -> NDArray[np.int64]:
    """Where groups of equal size begin among rising errors."""
    count = min(GROUPS, ordered.size)
    return -(-np.arange(count) * ordered.size // count)


def of_equal_ratio(ordered: Array) -> NDArray[np.int64]:
    """Where groups of equal ratio begin: errors of frequencies span several powers of ten."""
    edges = np.geomspace(ordered[0], ordered[-1], GROUPS + 1)[1:-1]
    begins = np.unique(np.append(0, np.searchsorted(ordered, edges)))
    return begins[begins < ordered.size]


def optimal_timesteps(
    schedule: NoiseSchedule, error: DenoisingError, k: int, spectral: bool = False
) -> Timesteps:
    """The k timesteps of the cheapest trajectory: from T-1 down, then the exact pixels.

    Args:
        schedule: the whole chain.
        error: of the network.
        k: how many.
        spectral: price the steps with the spectral variance instead of the analytic one.

    Raises:
        DdpmError: k out of range, or the spectral error was not measured.
    """
    check_count(k, schedule.num_timesteps)
    ends = error.decoder_at(np.arange(schedule.num_timesteps))
    return cheapest(step_costs(schedule, in_coordinates(error, spectral)), ends, k)


def in_coordinates(error: DenoisingError, spectral: bool) -> DenoisingError | SpectralError:
    """The error that prices a step: in pixels, or in colour and frequency.

    Raises:
        DdpmError: the latter was not measured.
    """
    if not spectral:
        return error
    if error.spectral is None:
        raise DdpmError(UNROTATED)
    return error.spectral


def smooth_timesteps(schedule: NoiseSchedule, error: DenoisingError, k: int) -> Timesteps:
    """The k timesteps, from T-1 down, along which a solver of the ODE is off least.

    They are chosen by the error of the calibrated x_0, where that was measured: at high noise a
    network may err by more than the images vary, which says nothing of them.

    Raises:
        DdpmError: k out of range.
    """
    check_count(k, schedule.num_timesteps)
    known = error if error.calibration is None else error.calibrated
    return cheapest(*ode_costs(schedule, known), k)


def cheapest(costs: Array, ends: Array, k: int) -> Timesteps:
    """The k timesteps of the cheapest path from T-1 down to the image.

    Args:
        costs: [T, T], of the step from t (row) to s < t (column); inf elsewhere.
        ends: [T], of the step from t to the image.
        k: 1..T.
    """
    return _down(_choices(costs, ends, k))


def cheapest_of_each(costs: Array, ends: Array, most: int) -> list[Timesteps]:
    """`cheapest` for every k from 1 to `most`, in the time of the last."""
    choices = _choices(costs, ends, most)
    return [_down(choices[:k]) for k in range(1, most + 1)]


def _choices(costs: Array, ends: Array, k: int) -> list[Timesteps]:
    """[T] for each number of steps that may be left, from 0: where to go from t, then."""
    best, choices = ends, [np.arange(len(ends))]
    for _ in range(k - 1):
        through = costs + best[None, :]
        choice = through.argmin(axis=1)
        choices.append(choice)
        best = np.take_along_axis(through, choice[:, None], axis=1)[:, 0]
    return choices


def _down(choices: list[Timesteps]) -> Timesteps:
    """The path from T-1 that the choices make, rising."""
    steps = [len(choices[0]) - 1]
    for choice in reversed(choices[1:]):
        steps.append(int(choice[steps[-1]]))
    return np.array(steps[::-1])


def predicted_bpd(
    schedule: NoiseSchedule, error: DenoisingError, timesteps: Timesteps, spectral: bool = False
) -> float:
    """What a trajectory should cost by the measured error, without the prior, in bits/dim.

    Args:
        schedule: the whole chain.
        error: of the network.
        timesteps: of the trajectory, rising.
        spectral: with the spectral variance instead of the analytic one.

    Raises:
        DdpmError: the spectral error was not measured.
    """
    snr, total = schedule.snr, float(error.decoder_at(timesteps[:1])[0])
    table = in_coordinates(error, spectral)
    for s, t in itertools.pairwise(timesteps):
        total += float(step_bits(snr[s] - snr[t], table.at(np.array([t]))).mean())
    return total


def even_timesteps(total: int, k: int) -> Timesteps:
    """k evenly spaced timesteps of `total`, always with the first and the last.

    Raises:
        DdpmError: k out of range.
    """
    check_count(k, total)
    if k == 1:
        return np.array([total - 1])
    return np.linspace(0, total - 1, k).round().astype(np.int64)


def quadratic_timesteps(total: int, k: int) -> Timesteps:
    """k timesteps of `total` whose square roots are evenly spaced: denser near the image.

    Raises:
        DdpmError: k out of range.
    """
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
