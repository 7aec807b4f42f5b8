"""Prices that are true: with so many bits as much arrives as was meant."""

import math

import numpy as np
import pytest

from ddpm.codec.prices import COUNT, END, LOSS, overhead, path_bits, step_price
from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import TreeCode


@pytest.mark.slow
@pytest.mark.parametrize(("kl", "targets"), [(8, 300), (25, 200), (60, 100), (250, 40)])
def test_as_much_arrives_as_was_meant_for_the_price_of_a_path(kl, targets):
    d = 768
    v, bits, more = 2 ** (-2 * kl / d), round(float(path_bits(kl))), []
    variance = np.full(d, v, np.float32)
    for seed in range(targets):
        noise = np.random.default_rng(seed).standard_normal(d)
        noise *= math.sqrt(d) / np.linalg.norm(noise)  # every KL is the mean one
        mean = (math.sqrt(1 - v) * noise).astype(np.float32)
        tree = TreeCode().grow(d, bits, seed)
        more.append(delivered(tree.vector(tree.search(mean, variance)), mean, variance) - kl)
    rounding = 0.5 / (1 + float(overhead(kl)))
    fit = 0.012 * kl  # the overhead differs by this much between sparse and dense targets
    error = np.std(more) / math.sqrt(targets)
    assert abs(np.mean(more)) < rounding + fit + 3 * error


def test_segments_cost_their_ends():
    kl = np.array([500.0, 4000.0])
    parted = 8 * path_bits(kl / 8) - path_bits(kl)
    assert parted == pytest.approx(7 * END, rel=0.1)


def test_a_price_is_of_numbers_and_arrays_alike_and_falls_for_each_bit():
    kl = np.geomspace(1, 1e5, 50)
    assert overhead(kl) == pytest.approx([float(overhead(float(one))) for one in kl])
    assert (np.diff(overhead(kl)) < 0).all()
    assert (np.diff(path_bits(kl)) > 0).all()
    assert step_price(0.0) == COUNT
    assert overhead(1e9) == pytest.approx(LOSS)
