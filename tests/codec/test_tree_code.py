"""Channel simulation: what arrives is a sample of the target, for little more than its KL."""

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
