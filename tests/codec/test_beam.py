"""The search: integers that cannot overflow, the best paths of all, the same everywhere."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.codec import beam, tree_code
from ddpm.codec.beam import BRANCH_BITS, LOWEST_BITS, ROWS, STRETCH_BITS, STRIDE, UNITS
from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import TreeCode, book, codebook, enter
from ddpm.errors import DdpmError


def exact_target(d, scale=1.0, narrow=0):
    """Means and variances that every machine has alike: multiples of powers of two."""
    i = np.arange(d)
    mean = ((i * 7919 % 257 - 128) / 64 * scale).astype(np.float32)
    variance = ((8 + i % 23) / 32 * 2.0**-narrow).astype(np.float32)
    return mean, variance


def slow_search(tree, mean, variance, table=None):
    """`Tree.search` in Python's own integers: nothing overflows and nothing is shifted wrongly."""
    table = codebook() if table is None else table
    largest = beam.integer_book(table).largest
    goal = beam.integer_target(mean, variance, tree.signs, tree.dims, largest)
    table = table.astype(np.float64).tolist()
    lines = [[round(UNITS * n) for n in row] for row in table]
    squares = [[round(UNITS * n * n) for n in row] for row in table]
    linear, square = goal.linear.tolist(), goal.square.tolist()

    def gain(branch, row):
        found = 0
        for stretch, dims in enumerate(tree.dims[branch].tolist()):
            at = (row + STRIDE * stretch) % ROWS
            pairs = zip(dims, lines[at], squares[at], strict=True)
            part = sum(linear[i] * n - square[i] * m for i, n, m in pairs)
            assert abs(part) < 2**31
            found += part >> goal.shift
        assert abs(found) < 2 ** (BRANCH_BITS + 1)
        return found

    whole = []
    for segment, root in enumerate(tree.roots.tolist()):
        paths = [(0, [], root)]
        for branch in range(tree.starts[segment], tree.starts[segment + 1]):
            grown = []
            for score, path, state in paths:
                for child in range(1 << int(tree.bits[branch])):
                    new = enter(state, child)
                    total = score + gain(branch, new >> 52)
                    assert abs(total) < 2**31
                    grown.append((total, [*path, child], new))
            kept = sorted(range(len(grown)), key=lambda i: (-grown[i][0], i))[: tree.beam]
            best = grown[kept[0]][0]
            paths = [
                (max(grown[i][0] - best, -(2**LOWEST_BITS)), *grown[i][1:]) for i in sorted(kept)
            ]
        whole += max(paths, key=lambda found: found[0])[1]
    return whole


targets = st.builds(
    lambda seed, mean, variance, zeros: (seed, 10.0**mean, 10.0**variance, zeros),
    st.integers(0, 99),
    st.integers(-8, 30),
    st.integers(-30, 8),
    st.booleans(),
)


def drawn(d, described):
    """(mean, variance) of sizes that no network should give, some of them of no weight."""
    seed, mean, variance, zeros = described
    generator = np.random.default_rng(seed)
    means = mean * generator.standard_normal(d) * generator.choice([1, 1e-6], d)
    variances = 1 + (variance - 1) * generator.random(d)
    if zeros:
        means[::2], variances[::2] = 0, 1
    return means.astype(np.float32), np.maximum(variances, 1e-38).astype(np.float32)


@given(
    d=st.integers(1, 80),
    bits=st.integers(0, 20),
    k=st.integers(1, 4),
    width=st.sampled_from([1, 3, 16]),
    segment=st.sampled_from([None, 5]),
    described=targets,
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_search_that_is_described(d, bits, k, width, segment, described):
    tree = TreeCode(k, width, segment).grow(d, bits, key=described[0])
    mean, variance = drawn(d, described)
    assert tree.search(mean, variance).tolist() == slow_search(tree, mean, variance)


@pytest.mark.parametrize(
    ("d", "bits", "k"), [(1, 8, 4), (5, 8, 4), (40, 11, 4), (7, 9, 3), (300, 10, 1), (100, 10, 6)]
)
@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_a_beam_of_all_paths_finds_the_best_of_all(d, bits, k, scale):
    tree = TreeCode(k, beam=1 << bits).grow(d, bits, key=d)
    mean, variance = exact_target(d, scale)
    ranges = [range(1 << int(width)) for width in tree.bits]
    told = {
        path: delivered(tree.vector(np.array(path)), mean, variance)
        for path in itertools.product(*ranges)
    }
    best = max(told.values())
    found = told[tuple(tree.search(mean, variance))]
    assert found >= best - 0.02 * np.std(list(told.values()))


@given(
    totals=st.lists(st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=60),
    width=st.integers(1, 70),
)
@settings(max_examples=300, deadline=None)
def test_the_best_are_kept_and_of_equal_ones_the_first(totals, width):
    kept = np.zeros(len(totals) + 1, np.int64)
    found = beam.keep(kept, np.array(totals, np.int32), len(totals), width)
    best = sorted(range(len(totals)), key=lambda i: (-totals[i], i))[:found]
    assert kept[:found].tolist() == sorted(best)
    assert min(len(totals), width - width // 32) <= found <= min(len(totals), width)


@given(d=st.integers(1, 5000), bits=st.integers(0, 40), described=targets)
@settings(max_examples=60, deadline=None)
def test_no_sum_can_leave_its_bits(d, bits, described):
    tree = TreeCode().grow(d, bits, key=described[0])
    goal = beam.integer_target(*drawn(d, described), tree.signs, tree.dims, book().largest)
    most = [abs(codebook()).max() * UNITS + 0.5, (codebook() ** 2).max() * UNITS + 0.5]
    sizes = [np.abs(part.astype(np.float64))[tree.dims] for part in goal[:2]]
    stretches = (most[0] * sizes[0] + most[1] * sizes[1]).sum(axis=2)
    assert stretches.max() < 2.01**STRETCH_BITS
    branches = stretches.sum(axis=1) / 2**goal.shift + stretches.shape[1]
    assert branches.max() < 2.01**BRANCH_BITS + stretches.shape[1]
    assert 2**LOWEST_BITS + branches.max() < 2**31
    largest = max(np.abs(part).max() for part in goal[:2])
    assert largest == 0 or largest > 2**12


@pytest.mark.parametrize("stretches", [1, 3, 40])
def test_the_largest_gain_that_a_table_could_give_is_right(stretches):
    table = np.full(codebook().shape, np.abs(codebook()).max(), np.float32)
    table[7] *= -1
    lines, largest = beam.integer_book(table)
    d = 16 * stretches
    dims = np.arange(d).reshape(1, stretches, 16)
    signs = np.ones(d, np.float32)
    for variance in (1e-30, 0.3, 2.0, 1e30):
        mean = np.full(d, 1.4, np.float32)
        goal = beam.integer_target(mean, np.full(d, variance, np.float32), signs, dims, largest)
        gains, part = np.zeros(ROWS, np.int32), np.zeros(ROWS, np.int32)
        beam.branch_gains(gains, part, dims[0], *goal[:2], lines, goal.shift)
        linear, square = (part.astype(np.int64)[:d].reshape(stretches, 16) for part in goal[:2])
        n, squared = round(UNITS * float(table[0, 0])), round(UNITS * float(table[0, 0]) ** 2)
        for row in (0, 7):
            turned = (row + STRIDE * np.arange(stretches)) % ROWS == 7
            each = n * np.where(turned, -1, 1)[:, None] * linear - squared * square
            assert gains[row] == (each.sum(axis=1) >> goal.shift).sum()
            assert np.abs(each.sum(axis=1)).max() < 2**31
        assert np.abs(gains.astype(np.int64)).max() > 2 ** (BRANCH_BITS - 5)
        assert np.abs(gains.astype(np.int64)).max() < 2 ** (BRANCH_BITS + 0.1)


def test_paths_as_far_behind_as_a_table_could_leave_them_stay_in_their_bits(monkeypatch):
    table = np.full(codebook().shape, np.abs(codebook()).max(), np.float32)
    table *= np.random.default_rng(0).choice([-1, 1], (ROWS, 1)).astype(np.float32)
    monkeypatch.setattr(tree_code, "book", lambda: beam.integer_book(table))
    for key in range(5):
        tree = TreeCode(1, beam=512).grow(16 * 9, 9, key)  # all paths are kept
        mean, variance = 1.4 * tree.signs, np.ones(16 * 9, np.float32)
        gain = beam.integer_target(mean, variance, tree.signs, tree.dims, book().largest)
        assert 9 * 2 * 16 * int(gain.linear[0]) * UNITS * 4 >> gain.shift > 2**31
        assert tree.search(mean, variance).tolist() == slow_search(tree, mean, variance, table)


def test_equal_paths_the_first_is_taken():
    for segment in (None, 8):
        tree = TreeCode(beam=7, segment=segment).grow(30, 41, key=2)
        assert not tree.search(np.zeros(30, np.float32), np.ones(30, np.float32)).any()


def test_the_children_of_a_state_are_those_the_receiver_enters():
    for state in (0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0):
        with np.errstate(over="ignore"):
            mixed = beam.mixed(np.uint64(state)) * beam.GOLDEN
            for child in range(16):
                assert int(mixed * np.uint64(2 * child + 1) | beam.ONE) == enter(state, child)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused(wrong, which):
    tree = TreeCode().grow(20, 9, key=0)
    both = exact_target(20)
    both[which][3] = wrong
    with pytest.raises(DdpmError, match="not finite"):
        tree.search(*both)


@pytest.mark.parametrize("wrong", [0, -1e-9])
def test_a_variance_that_is_none_is_refused(wrong):
    mean, variance = exact_target(20)
    variance[7] = wrong
    with pytest.raises(DdpmError, match="not finite"):
        TreeCode().grow(20, 9, key=0).search(mean, variance)


# -- the same everywhere -------------------------------------------------------------------------

CODES = {
    "plain": (TreeCode(4, 64), 300, 123),
    "wide": (TreeCode(4, 16), 9000, 50),
    "dense": (TreeCode(3, 32), 20, 70),
    "segments": (TreeCode(4, 16, segment=40), 500, 170),
    "large": (TreeCode(6, 2048), 100, 30),
}
GOLDEN = {
    "plain": "9f8758ef630ee6a4",
    "wide": "d3b475b0720cdb60",
    "dense": "75966cfc2881a42b",
    "segments": "043b3cec095bbf7f",
    "large": "139a3cc316528328",
}


def digest(name):
    """Of the path that the search finds."""
    code, d, bits = CODES[name]
    return hashed(code.grow(d, bits, key=11).search(*exact_target(d)))


def hashed(path):
    """Eight bytes that another path would not have."""
    return hashlib.blake2b(path.astype("<i8").tobytes(), digest_size=8).hexdigest()


@pytest.mark.parametrize("name", CODES)
def test_the_path_is_the_one_it_was(name):
    assert digest(name) == GOLDEN[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_OPT": "0"}],
)
def test_the_path_is_the_same_however_it_is_run(setting):
    names = ["dense"] if "NUMBA_DISABLE_JIT" in setting else list(CODES)
    program = f"from test_beam import digest; print(*map(digest, {names}))"
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **setting, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [GOLDEN[name] for name in names]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads):
    code, d, bits = CODES["segments"]
    tree = code.grow(d, bits, key=11)
    assert hashed(tree.search(*exact_target(d), threads=threads)) == GOLDEN["segments"]
