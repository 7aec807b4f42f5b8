"""The exact last stage: every pixel comes back, for as many bits as its distribution asks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ddpm.codec.exact_pixels import SCALES, PixelModel, best_scale


def drawn(levels, n=2000, sigma=1.5, seed=0):
    """(pixels, predicted x_0, expected squared error) with errors of `sigma` grey levels."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, levels, n)
    mean = truth + random.normal(0, sigma, n)
    half = (levels - 1) / 2
    return truth.astype(np.int32), mean / half - 1, np.full(n, (sigma / half) ** 2)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_code_is_as_long_as_its_distribution_says(levels):
    pixels, xstart, mse = drawn(levels)
    model = PixelModel(xstart, mse, levels, 8)
    edges = np.arange(1, levels) - 0.5
    cdf = norm.cdf(edges[None], model.means[:, None], model.scales[:, None])
    cdf = np.concatenate([np.zeros((len(cdf), 1)), cdf, np.ones((len(cdf), 1))], axis=1)
    masses = np.diff(cdf)[np.arange(len(pixels)), pixels]
    ideal = -np.log2(masses).sum()
    code = model.encode(pixels)
    assert 8 * len(code) == pytest.approx(ideal, rel=0.005, abs=64)
    assert np.array_equal(model.decode(code), pixels)


@given(
    n=st.integers(1, 60),
    levels=st.integers(2, 256),
    scale=st.integers(0, 15),
    seed=st.integers(0, 99),
    sigma=st.floats(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_any_pixels_survive_any_prediction(n, levels, scale, seed, sigma):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, levels, n).astype(np.int32)
    xstart = random.normal(0, 2, n)
    model = PixelModel(xstart, np.full(n, sigma**2), levels, scale)
    assert np.array_equal(model.decode(model.encode(pixels)), pixels)


def test_what_no_encoder_wrote_gives_fewer_pixels_and_no_error():
    pixels, xstart, mse = drawn(17, sigma=0.5)
    model = PixelModel(xstart, mse, 17, 8)
    lengths = set()
    for seed in range(20):
        code = np.random.default_rng(seed).bytes(400)
        values = model.decode(code)
        lengths.add(len(values))
        assert ((values >= 0) & (values < 17)).all()
    assert min(lengths) < len(pixels)


def test_the_beginning_of_a_code_decides_the_first_pixels():
    pixels, xstart, mse = drawn(17)
    model = PixelModel(xstart, mse, 17, 8)
    code = model.encode(pixels)
    for size in (0, 1, 10, 100, len(code) - 5):
        zeros, ones = model.decode(code[:size]), model.decode(code[:size], b"\xff")
        n = min(len(zeros), len(ones))
        same = np.cumprod(zeros[:n] == ones[:n]).astype(bool)
        assert np.array_equal(zeros[:n][same], pixels[:n][same])
        assert size < 100 or same.sum() > 100


def test_the_best_scale_is_the_one_of_the_shortest_code():
    pixels, xstart, mse = drawn(17)
    found = best_scale(17, pixels, xstart, mse)
    sizes = [len(PixelModel(xstart, mse, 17, i).encode(pixels)) for i in range(len(SCALES))]
    assert sizes[found] <= min(sizes) + 4
    assert abs(SCALES[found] - 1) < 0.2, "the errors are as large as they are said to be"
    assert best_scale(17, pixels, xstart, mse / 4) > found
