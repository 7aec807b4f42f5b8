"""The range coder: symbols come back, for the bits that their frequencies ask, from any bytes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.codec import range_coder
from ddpm.codec.range_coder import TOTAL, TOTAL_BITS, consume, highest, lowest, start


def alphabet(random, symbols):
    """Cumulative frequencies of some symbols, each at least 1, from very even to very uneven."""
    kind = random.integers(3)
    if kind == 0:
        inner = random.integers(1, TOTAL, symbols - 1)
    elif kind == 1:
        inner = np.arange(1, symbols)  # all but the last have a frequency of 1
    else:
        inner = TOTAL - np.arange(1, symbols)
    inner = np.unique(inner)
    return np.concatenate([[0], inner, [TOTAL]]).astype(np.int64)


def message(seed, n, likely=False):
    """(alphabets, symbols) of a random message."""
    random = np.random.default_rng(seed)
    alphabets = [alphabet(random, int(random.integers(2, 20))) for _ in range(n)]
    symbols = [
        int(np.searchsorted(a, random.integers(TOTAL), "right") - 1)
        if likely or random.integers(2)
        else int(random.integers(len(a) - 1))
        for a in alphabets
    ]
    return alphabets, symbols


def shares(alphabets, symbols):
    """Lower and upper ends."""
    low = np.array([a[s] for a, s in zip(alphabets, symbols, strict=True)], dtype=np.int64)
    high = np.array([a[s + 1] for a, s in zip(alphabets, symbols, strict=True)], dtype=np.int64)
    return low, high


def decoded(code, alphabets, complete=True):
    """Symbols of a code, as far as they are known."""
    bytes_ = np.frombuffer(code, dtype=np.uint8)
    state, found = start(bytes_, complete), []
    for a in alphabets:
        symbol = int(np.searchsorted(a, lowest(state), "right") - 1)
        if highest(state) >= a[symbol + 1]:
            break
        consume(state, a[symbol], a[symbol + 1], bytes_, complete)
        found.append(symbol)
    return found


def interval(low, high):
    """What a coder of unlimited digits narrows [0, 1) to, with the same widths."""
    begin, width, scale = 0, 1 << 56, 56
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        unit = width >> TOTAL_BITS
        begin, width = begin + unit * a, unit * (b - a)
        while width < 1 << 48:
            begin, width, scale = begin << 8, width << 8, scale + 8
    return Fraction(begin, 1 << scale), Fraction(begin + width, 1 << scale)


@given(seed=st.integers(0, 10**6), n=st.integers(0, 60), likely=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_code_is_the_shortest_number_in_the_interval_and_decodes(seed, n, likely):
    alphabets, symbols = message(seed, n, likely)
    low, high = shares(alphabets, symbols)
    code = range_coder.encode(low, high)
    begin, end = interval(low, high)
    value = Fraction(int.from_bytes(code, "big"), 1 << 8 * len(code))
    assert begin <= value < end
    if code:  # one byte less would be no number in it
        size = 1 << 8 * (len(code) - 1)
        assert Fraction(-(-begin.numerator * size // begin.denominator), size) >= end
    assert decoded(code, alphabets) == symbols


def test_a_carry_runs_through_bytes_that_are_full():
    # The middle symbol is a narrow interval around one half, and the next decides on which side.
    half = np.array([0, TOTAL // 2 - 1, TOTAL // 2 + 1, TOTAL], dtype=np.int64)
    for n in range(1, 12):
        for side in (0, 1):
            alphabets = [half] * n + [np.array([0, TOTAL // 2, TOTAL], dtype=np.int64)] * 9
            symbols = [1] * n + [side] + [1, 0, 1, 1, 0, 0, 1, 1]
            code = range_coder.encode(*shares(alphabets, symbols))
            full = (23 * n - 8) // 8
            assert code.startswith(b"\x80" + bytes(full) if side else b"\x7f" + b"\xff" * full)
            assert decoded(code, alphabets) == symbols


@pytest.mark.parametrize("seed", range(5))
def test_the_cost_is_that_of_the_frequencies(seed):
    alphabets, symbols = message(seed, 3000, likely=True)
    low, high = shares(alphabets, symbols)
    ideal = (TOTAL_BITS - np.log2(high - low)).sum() / 8
    assert ideal - 1 <= len(range_coder.encode(low, high)) <= ideal * 1.0001 + 2


@pytest.mark.parametrize("seed", range(30))
def test_a_beginning_tells_the_symbols_that_no_other_bytes_could_change(seed):
    alphabets, symbols = message(seed, 40)
    code = range_coder.encode(*shares(alphabets, symbols))
    before = 0
    for size in range(len(code) + 1):
        known = decoded(code[:size], alphabets, complete=False)
        assert known == symbols[: len(known)]
        assert len(known) >= before
        before = len(known)
        zeros = decoded(code[:size], alphabets)
        ones = decoded(code[:size] + b"\xff" * 200, alphabets)
        same = np.cumprod([a == b for a, b in zip(zeros, ones, strict=True)])
        assert len(known) == int(same.sum())
    assert before > 30


@given(code=st.binary(max_size=60), seed=st.integers(0, 1000), complete=st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_no_encoder_wrote_decodes_to_some_symbols(code, seed, complete):
    alphabets, _ = message(seed, 40)
    found = decoded(code, alphabets, complete)
    assert len(found) == 40 or not complete
    assert all(0 <= s < len(a) - 1 for s, a in zip(found, alphabets, strict=False))


def test_bytes_beyond_every_share_are_those_of_the_last_symbol():
    last = np.array([0, TOTAL - 1, TOTAL], dtype=np.int64)
    even = np.array([0, TOTAL // 3, TOTAL], dtype=np.int64)
    for alphabets in ([last] * 40, [even, last] * 20):
        assert decoded(b"\xff" * 300, alphabets) == [1] * 40
