"""Channel simulation: what arrives is a sample of the target, for little more than its KL."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import TreeCode, codebook, random_words


def gaussian_target(d, kl_bits, seed):
    """(mean, variance) of a q whose KL from N(0, I) is `kl_bits` on average.

    The mean of q is itself drawn so that q's samples are N(0, I) on average: E KL is then
    -d/2 log2(v).
    """
    variance = 2 ** (-2 * kl_bits / d)
    mean = np.random.default_rng(seed).normal(0, math.sqrt(1 - variance), d).astype(np.float32)
    return mean, np.full(d, variance, np.float32)


def arrived(tree, mean, variance):
    """What a receiver gets of a target."""
    return tree.vector(tree.search(mean, variance))


@given(d=st.integers(1, 300), bits=st.integers(0, 400), k=st.integers(1, 6), key=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_the_branches_share_the_dimensions_out_and_the_bits(d, bits, k, key):
    tree = TreeCode(branch_bits=k).grow(d, bits, key)
    covered = tree.dims[tree.dims < d]
    assert sorted(covered) == list(range(d))
    assert int(tree.bits.sum()) == bits
    assert int(tree.bits.max()) <= k
    assert set(np.unique(tree.signs)) <= {-1, 1}


@given(
    d=st.integers(1, 300),
    bits=st.integers(0, 400),
    k=st.integers(1, 6),
    segment=st.integers(1, 500),
)
@settings(max_examples=50, deadline=None)
def test_segments_are_the_branches_of_one_tree_cut_into_equal_parts(d, bits, k, segment):
    whole = TreeCode(k).grow(d, bits, 3)
    tree = TreeCode(k, segment=segment).grow(d, bits, 3)
    assert np.array_equal(tree.dims, whole.dims)
    assert np.array_equal(tree.bits, whole.bits)
    assert len(tree.roots) == max(1, min(round(bits / segment), len(tree.bits)))
    assert tree.starts[0] == 0
    assert tree.starts[-1] == len(tree.bits)
    lengths = np.diff(tree.starts)
    assert lengths.min() >= 1
    assert lengths.max() - lengths.min() <= 1
    assert len(set(tree.roots.tolist())) == len(tree.roots)
    assert tree.roots[0] == whole.roots[0]


def test_a_segment_does_not_depend_on_the_path_through_those_before_it():
    tree = TreeCode(segment=40).grow(200, 120, 5)
    one, other = np.zeros(30, np.int64), np.zeros(30, np.int64)
    other[: tree.starts[1]] = 5
    differs = tree.vector(one) != tree.vector(other)
    first = tree.dims[: tree.starts[1]]
    assert set(np.flatnonzero(differs)) <= set(first.reshape(-1))
    assert differs.mean() > 0.3


# What the version that first wrote files made of the path (5 i^2 + 3 i + 1) mod 2^k.
WRITTEN = {
    (1, 0, 4, 0): ("3d37de7e0cf21c34", "4e842f2f50cc089e"),
    (1, 7, 4, 1): ("e19d51d893e55c9d", "3b84cf75d6001cab"),
    (5, 8, 4, 7): ("03c65a5938e7265c", "045da1694c009a4b"),
    (300, 1, 4, 2): ("32857f195dd0be66", "c5d941658e640f17"),
    (40, 30, 4, 0): ("3f5167b6f8d98dee", "26a054dd1e0f36c3"),
    (768, 216, 4, 3): ("6daa3fe8088190ed", "d3352e689e47e575"),
    (3072, 1001, 4, 12345678901234567890): ("9c5d740eae363fa3", "8f8e6a477af9831c"),
    (1000, 257, 3, 5): ("42df75bbce44ccc5", "1e8b99cae1db385c"),
    (200, 400, 6, 9): ("f336a24d579836e9", "d2514b55e117e9d1"),
    (50, 49, 1, 4): ("1e974a748bd1f310", "4fffa2c444961b52"),
    (100000, 37, 4, 6): ("2673c345fc082017", "58f58a8033fa747e"),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_path_stands_for_what_it_stood_for_in_the_first_files(case):
    d, bits, k, key = case
    tree = TreeCode(branch_bits=k).grow(d, bits, key)
    i = np.arange(len(tree.bits))
    path = (5 * i * i + 3 * i + 1) % (1 << tree.bits)
    parts = [tree.vector(path), tree.vector(path[: len(path) // 2])]
    found = [hashlib.blake2b(z.astype("<f4").tobytes(), digest_size=8).hexdigest() for z in parts]
    assert found == list(WRITTEN[case])


@given(d=st.integers(1, 100), bits=st.integers(0, 60), key=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_path_says_the_same_to_everyone_and_its_beginning_the_same_part(d, bits, key):
    tree = TreeCode(beam=8).grow(d, bits, key)
    path = tree.search(*gaussian_target(d, bits, key))
    assert len(path) == len(tree.bits)
    assert (path >= 0).all()
    assert (path < 1 << tree.bits).all()
    z = tree.vector(path)
    assert np.array_equal(z, TreeCode(beam=64).grow(d, bits, key).vector(path))
    part = tree.vector(path[: len(path) // 2])
    assert ((part == z) | (part == 0)).all()


def test_the_codebook_is_normal_and_on_its_grid():
    book = codebook()
    assert np.array_equal(book * 4096, np.round(book * 4096))
    assert np.abs(book.mean(0)).max() < 4 / 64
    assert np.abs(book.std(0) - 1).max() < 0.05
    words = random_words(10_000, key=3)
    assert words.min() >= 0
    assert abs(words.mean() / 2**32 - 0.5) < 0.02


@pytest.mark.parametrize("kl_bits", [100, 400])
def test_a_target_arrives_with_its_own_variance_for_a_tenth_more_than_its_kl(kl_bits):
    d, code = 768, TreeCode()
    bits = round(1.08 * kl_bits)
    told, spread, mismatch = 0.0, [], []
    for seed in range(4):
        mean, variance = gaussian_target(d, kl_bits, seed)
        z = arrived(code.grow(d, bits, seed), mean, variance)
        told += delivered(z, mean, variance)
        spread.append(((z - mean) ** 2 / variance).mean())
        mismatch.append(z.var())
    assert told >= 4 * bits / 1.2
    assert 0.9 < np.mean(spread) < 1.15
    assert 0.9 < np.mean(mismatch) < 1.1


def test_a_beam_beats_choosing_each_branch_alone():
    d, bits = 768, 216
    score = {}
    for beam in (1, 1024):
        code = TreeCode(beam=beam)
        score[beam] = 0.0
        for seed in range(3):
            mean, variance = gaussian_target(d, 200, seed)
            z = arrived(code.grow(d, bits, seed), mean, variance)
            score[beam] += delivered(z, mean, variance) / 3
    assert score[1024] > score[1] + 10


def test_a_small_tree_is_searched_to_the_end():
    d, bits = 5, 8
    code = TreeCode(branch_bits=4, beam=256)
    mean, variance = gaussian_target(d, 6, seed=1)
    best = arrived(code.grow(d, bits, 7), mean, variance)
    everything = [
        delivered(code.grow(d, bits, 7).vector(np.array([a, b])), mean, variance)
        for a in range(16)
        for b in range(16)
    ]
    assert delivered(best, mean, variance) == pytest.approx(max(everything), abs=1e-4)


def test_dimensions_that_do_not_matter_decide_nothing():
    mean, variance = gaussian_target(40, 30, seed=2)
    mean[20:], variance[20:] = 0, 1
    z = arrived(TreeCode().grow(40, 30, 0), mean, variance)
    assert delivered(z, mean, variance) == pytest.approx(
        delivered(z[:20], mean[:20], variance[:20]), abs=1e-4
    )
