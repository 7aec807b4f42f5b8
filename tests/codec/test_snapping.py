"""x^_0 rounded to integers that a small difference does not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.snapping import FINE, MARGIN, TRIES, UNIT, Grid
from ddpm.errors import DdpmError


def spread(n, seed=0):
    """x^_0 all over [-1, 1], some beyond."""
    return np.random.default_rng(seed).uniform(-1.02, 1.02, n)


def written(grid, tries, count):
    """(bytes, bits) of the numbers of the offsets."""
    out = BitWriter()
    bits = grid.write(tries, count, out)
    return out.bytes(), bits


@pytest.mark.parametrize(("cell", "block"), [(1, 64), (2, 64), (4, 256), (16, 1024)])
def test_a_difference_below_the_margin_changes_nothing_and_one_beyond_it_does(cell, block):
    grid, x = Grid(cell, block), spread(20_000)
    tries, margins = grid.choose(x)
    good = np.repeat(margins >= MARGIN, block)[: len(x)]
    assert good.mean() > 0.999
    rounded = grid.rounded(x, tries)
    random = np.random.default_rng(1)
    for _ in range(20):
        drift = random.uniform(-1, 1, len(x)) * 0.999 * MARGIN / 127.5
        assert np.array_equal(grid.rounded(x + drift, tries)[good], rounded[good])
    beyond = grid.rounded(x + random.choice([-3, 3], len(x)) * MARGIN / 127.5, tries)
    assert 0 < (beyond != rounded).mean() < 0.1


@pytest.mark.parametrize("cell", [1, 2, 3, 4, 16])
def test_the_middle_of_the_cell_is_near(cell):
    grid, x = Grid(cell), spread(10_000)
    rounded = grid.rounded(x, grid.choose(x)[0])
    error = rounded / UNIT - np.clip((x + 1) * 127.5, 0, 255)
    assert np.abs(error).max() <= cell / 2 + 1 / UNIT
    assert abs(np.sqrt((error**2).mean()) - cell / np.sqrt(12)) < 0.03 * cell + 0.05
    assert 255 * UNIT - grid.bound <= rounded.min()
    assert rounded.max() <= grid.bound
    # Half of a cell below the bottom and above the top are reached.
    assert abs(error.mean()) < 0.02 * cell + 0.5 / UNIT


def test_offsets_are_spread_evenly_over_a_cell():
    for cell in range(1, 17):
        offsets = Grid(cell).offsets
        assert len(np.unique(offsets)) == min(TRIES, FINE * cell)
        assert offsets.min() >= 0
        assert offsets.max() < FINE * cell
        gaps = np.diff(np.sort(np.append(offsets[:16], offsets[:16] + FINE * cell)))
        assert gaps.max() <= FINE * cell / 16 * 2.7


def test_the_price_is_that_of_the_formula():
    for cell, block, formula in (
        (4, 256, 0.012),
        (2, 256, 0.020),
        (4, 128, 0.015),
        (4, 512, 0.010),
    ):
        x = spread(block * 800)
        tries, margins = Grid(cell, block).choose(x)
        p = (1 - 2 * MARGIN / cell) ** block
        entropy = (-np.log2(p) - (1 - p) / p * np.log2(1 - p)) / block
        bits = written(Grid(cell, block), tries, len(x))[1] / len(x)
        assert entropy == pytest.approx(formula, rel=0.1)
        assert bits <= 1.25 * entropy + 1e-3, (cell, block)
        if p > 0.2:
            assert (margins >= MARGIN).all()
            assert tries.mean() == pytest.approx((1 - p) / p, rel=0.2)


def test_a_block_that_has_no_good_offset_takes_the_best_and_says_so():
    grid = Grid(2, 4096)
    x = spread(4096)
    tries, margins = grid.choose(x)
    assert margins[0] < MARGIN
    found = (np.clip((x + 1) * 127.5, 0, 255)[:, None] * FINE - grid.offsets) / (FINE * 2)
    distance = np.abs(found - np.rint(found)).min(axis=0) * 2
    assert margins[0] == pytest.approx(distance.max())
    assert tries[0] == distance.argmax()


@given(
    count=st.integers(0, 2000),
    block=st.sampled_from([1, 64, 191, 192, 256]),
    seed=st.integers(0, 100),
    high=st.sampled_from([1, 4, TRIES]),
)
@settings(max_examples=60, deadline=None)
def test_the_numbers_of_the_offsets_come_back_and_a_cut_is_noticed(count, block, seed, high):
    grid = Grid(4, block)
    tries = np.random.default_rng(seed).integers(0, high, grid.blocks(count))
    data, bits = written(grid, tries, count)
    assert -(-bits // 8) == len(data)
    reader = BitReader(data + b"\xff")
    assert np.array_equal(grid.read(count, reader), tries)
    assert reader.position == bits
    if data:
        with pytest.raises(EndOfData):
            grid.read(count, BitReader(data[:-1]))


def test_offsets_that_do_not_exist_are_refused():
    grid = Grid(4, 64)
    with pytest.raises(DdpmError, match="damaged"):
        grid.read(64, BitReader(b"\xff" * 8 + b"\0"))
    with pytest.raises(EndOfData):
        grid.read(64, BitReader(b"\xff" * 100))
    for cell, block in ((0, 256), (17, 256), (4, 0)):
        with pytest.raises(DdpmError):
            Grid(cell, block)
