"""Which way an image should come: how many steps, at which timesteps, and where the last stage
takes over.

Every step t -> s has a price in bits, its KL by the measured error and what the search adds to it,
and so has an end at t, what the last stage takes from there. The cheapest route of K steps is a
shortest path (`ddpm.likelihood.trajectory`), and of all K the least is taken that comes within
NEARLY of the best, because every step is a call of the network.

A bit of the last stage counts up to LATE times, because it shows one pixel, and a bit of the path
the whole picture: where the ends cost nearly the same, as they do, the path goes further down, and
the beginnings of a file show more. The whole may become at most DEARER for it.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm.codec.prices import SENT, step_price
from ddpm.codec.route import FINE, MAX_STEPS, Route
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import check
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.spectral_error import SpectralError
from ddpm.likelihood.trajectory import cheapest, cheapest_of_each, step_bits, step_costs

Array = NDArray[np.float64]
Errors = DenoisingError | SpectralError
MOST, NEARLY = 40, 1.005  # steps that are tried by default, and how much worse than the best
LATE, DEARER = (1.2, 1.15, 1.1, 1.05), 1.01  # the first that the whole is not too dear for


class Planned(NamedTuple):
    """A route, and what a part should take by it, in bits/dim."""

    route: Route
    bpd: float


def choose_route(
    schedule: NoiseSchedule,
    error: Errors,
    ends: dict[int, float],
    tiles: int,
    steps: int | None = None,
    last: int | None = None,
) -> Planned:
    """The cheapest route.

    Args:
        schedule: the whole chain.
        error: of the network, in the coordinates of the chain's variances.
        ends: bits/dim that the last stage takes from some timesteps; it works between them.
        tiles: that a part has.
        steps: K; the best by default.
        last: timestep at which the last stage takes over; the best by default.

    Returns:
        Its price as it is, nothing counted more than once.

    Raises:
        DdpmError: one of them is out of range.
    """
    known = np.array(sorted(ends))
    low, high = int(known[0]), int(known[-1])
    check(
        last is None or (isinstance(last, Integral) and low <= last <= high),
        f"the last timestep must lie in {low}..{high}, for which this model's last stage was "
        f"trained, got {last}",
    )
    most = min(MAX_STEPS, schedule.num_timesteps - (low if last is None else last))
    least = 1 if (high if last is None else last) == schedule.num_timesteps - 1 else 2
    where = "" if last is None else f" for a path that ends at {last}"
    check(
        steps is None or (isinstance(steps, Integral) and least <= steps <= most),
        f"steps must lie in {least}..{most}{where}, got {steps}",
    )
    numbers = tiles * math.prod(error.xstart_mse.shape[1:])
    prices = np.asarray(step_price(numbers * step_costs(schedule, error)))
    timesteps = np.arange(schedule.num_timesteps)
    costs = np.interp(timesteps, known, [ends[t] for t in known.tolist()]) * numbers
    allowed = (timesteps >= low) & (timesteps <= high)
    if last is not None:
        allowed = timesteps == last
    path = _best(prices, np.where(allowed, costs, np.inf), steps, most)
    return Planned(_priced(schedule, error, path), _total(prices, costs, path) / numbers)


def _best(prices: Array, ends: Array, steps: int | None, most: int) -> NDArray[np.int64]:
    """The timesteps of the path that is taken, rising."""
    smallest = _cheapest(prices, ends, 1, steps, most)
    for late in LATE:
        path = _cheapest(prices, ends, late, steps, most)
        if _total(prices, ends, path) <= DEARER * _total(prices, ends, smallest):
            return path
    return smallest


def _cheapest(
    prices: Array, ends: Array, late: float, steps: int | None, most: int
) -> NDArray[np.int64]:
    """The timesteps of the cheapest path, rising, where a bit of the end counts `late` times."""
    if steps is not None:
        return cheapest(prices, late * ends, steps)
    paths = cheapest_of_each(prices, late * ends, min(MOST, most))
    weighed = np.array([_total(prices, late * ends, path) for path in paths])
    slack = (NEARLY - 1) * min(_total(prices, ends, path) for path in paths)
    return paths[int(np.argmax(weighed <= weighed.min() + slack))]


def _total(prices: Array, ends: Array, path: NDArray[np.int64]) -> float:
    """Bits of a path, and of its end."""
    return float(prices[path[1:], path[:-1]].sum() + ends[path[0]])


def _priced(schedule: NoiseSchedule, error: Errors, path: NDArray[np.int64]) -> Route:
    """The path from T - 1 down, with what each of its steps should take for a tile."""
    falling = path[::-1]
    gains = schedule.snr[falling[1:]] - schedule.snr[falling[:-1]]
    errors = error.at(falling[:-1])
    kl = np.array([step_bits(g, mse).sum() for g, mse in zip(gains, errors, strict=True)])
    prices = tuple(round(FINE * bits) for bits in (SENT * kl).tolist())
    return Route(tuple(map(int, falling)), prices)
