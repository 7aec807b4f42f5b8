"""The way an image comes, beside every way that it could come."""

import itertools
import math

import numpy as np
import pytest

from ddpm.codec import planning
from ddpm.codec.planning import DEARER, LATE, NEARLY, choose_route
from ddpm.codec.prices import SENT, step_price
from ddpm.codec.route import FINE
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.trajectory import step_bits

T, SHAPE, TILES = 9, (1, 2, 2), 50
ENDS = {1: 1.0, 4: 1.4, 7: 3.0}
SCHEDULE = make_schedule(timesteps=T, beta_end=0.3)


@pytest.fixture(scope="module")
def error():
    """What a network might err by, rising with t, in each of four pixels."""
    mse = np.sort(np.random.default_rng(1).uniform(1e-3, 0.5, (T, *SHAPE)), axis=0)
    return DenoisingError(np.arange(T), mse, np.linspace(0.5, 4, T), 100)


def price(error, path, late):
    """Bits of a falling path and of its end, by the definition."""
    numbers, total = TILES * 4, 0.0
    for t, s in itertools.pairwise(path):
        bits = step_bits(SCHEDULE.snr[s] - SCHEDULE.snr[t], error.at(np.array([t])))
        total += step_price(TILES * bits.sum())
    return total + late * numbers * np.interp(path[-1], list(ENDS), list(ENDS.values()))


def every_path():
    """All falling paths from T - 1 to an end that the last stage knows, by their length."""
    found = {}
    for count in range(T):
        for rest in itertools.combinations(range(T - 2, -1, -1), count):
            path = (T - 1, *rest)
            if min(ENDS) <= path[-1] <= max(ENDS):
                found.setdefault(len(path), []).append(path)
    return found


@pytest.mark.parametrize("late", [1.0, LATE[0], 3.0])
def test_the_route_is_the_cheapest_of_all(error, monkeypatch, late):
    monkeypatch.setattr(planning, "LATE", (late,))
    monkeypatch.setattr(planning, "DEARER", math.inf)
    best = {k: min(paths, key=lambda p: price(error, p, late)) for k, paths in every_path().items()}
    for k, path in best.items():
        planned = choose_route(SCHEDULE, error, ENDS, TILES, steps=k)
        found = price(error, planned.route.timesteps, late)
        assert found == pytest.approx(price(error, path, late))
        assert planned.bpd == pytest.approx(price(error, planned.route.timesteps, 1) / TILES / 4)
    least = min(price(error, path, late) for path in best.values())
    least += (NEARLY - 1) * min(price(error, path, 1) for path in best.values())
    enough = min(k for k, path in best.items() if price(error, path, late) <= least)
    assert choose_route(SCHEDULE, error, ENDS, TILES).route.steps == enough


def test_the_path_goes_further_down_than_where_the_file_is_smallest(error, monkeypatch):
    monkeypatch.setattr(planning, "DEARER", math.inf)
    found = {}
    for late in (0.5, 1.0, LATE[0], 3.0):
        monkeypatch.setattr(planning, "LATE", (late,))
        found[late] = choose_route(SCHEDULE, error, ENDS, TILES)
    ends = [planned.route.last for planned in found.values()]
    assert ends == sorted(ends, reverse=True)
    assert len(set(ends)) > 1
    assert found[1.0].bpd <= NEARLY * min(planned.bpd for planned in found.values())


@pytest.mark.parametrize("dearer", [1.0, DEARER, 1.05, 1.5])
def test_good_beginnings_cost_no_more_than_they_may(error, monkeypatch, dearer):
    weights = (3.0, 2.0, 1.5, 1.2, 1.1)
    found = {}
    with monkeypatch.context() as one:
        one.setattr(planning, "DEARER", math.inf)
        for late in (*weights, 1.0):
            one.setattr(planning, "LATE", (late,))
            found[late] = choose_route(SCHEDULE, error, ENDS, TILES)
    monkeypatch.setattr(planning, "LATE", weights)
    monkeypatch.setattr(planning, "DEARER", dearer)
    taken = choose_route(SCHEDULE, error, ENDS, TILES)
    fitting = [planned for planned in found.values() if planned.bpd <= dearer * found[1.0].bpd]
    assert taken == fitting[0]
    assert found[1.0].bpd < found[3.0].bpd


def test_an_end_and_a_number_of_steps_that_are_given_are_kept(error):
    for last, steps in itertools.product(range(1, 8), range(2, 3)):
        planned = choose_route(SCHEDULE, error, ENDS, TILES, steps=steps, last=last)
        assert (planned.route.last, planned.route.steps) == (last, steps)
        fitting = [path for path in every_path()[steps] if path[-1] == last]
        least = min(price(error, path, 1) for path in fitting)
        assert planned.bpd == pytest.approx(least / TILES / 4)


def test_the_price_of_a_step_is_what_the_sender_will_take_for_a_tile(error):
    route = choose_route(SCHEDULE, error, ENDS, TILES, steps=4, last=1).route
    for (t, s), said in zip(itertools.pairwise(route.timesteps), route.prices, strict=True):
        kl = step_bits(SCHEDULE.snr[s] - SCHEDULE.snr[t], error.at(np.array([t]))).sum()
        assert said == round(FINE * SENT * kl)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"last": 0}, r"must lie in 1\.\.7.*got 0"),
        ({"last": 8}, r"must lie in 1\.\.7.*got 8"),
        ({"steps": 1}, r"steps must lie in 2\.\.8, got 1"),
        ({"steps": 9}, r"steps must lie in 2\.\.8, got 9"),
    ],
)
def test_what_the_last_stage_does_not_know_is_refused(error, asked, said):
    with pytest.raises(DdpmError, match=said):
        choose_route(SCHEDULE, error, ENDS, TILES, **asked)
