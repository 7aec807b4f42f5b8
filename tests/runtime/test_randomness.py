"""The counter-based generator: published answers, independence of the batch, and its laws."""

import pytest
import torch
from scipy.stats import kstest

from ddpm.runtime.randomness import Randomness, derive_key, philox

KNOWN = [  # Random123's known-answer vectors for philox4x32-10
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    low, high = words(key)
    found = philox([torch.tensor([word]) for word in words(counter)], high << 32 | low)
    assert [int(word) for word in found] == words(answer)


def test_numbers_depend_on_the_index_and_not_on_the_batch():
    source = Randomness(3, "test")
    whole = source.normal(torch.arange(10), (3, 5, 7), step=4)
    parts = [source.normal(i, (3, 5, 7), step=4) for i in torch.arange(10).split(3)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(source.normal(torch.tensor([7]), (3, 5, 7), step=4)[0], whole[7])
    assert source.uniform(torch.arange(9))[5:6].equal(source.uniform(torch.tensor([5])))


def test_seed_purpose_step_and_index_all_matter():
    index = torch.arange(2)
    draws = [
        Randomness(0, "a").normal(index, (8,)),
        Randomness(1, "a").normal(index, (8,)),
        Randomness(0, "b").normal(index, (8,)),
        Randomness(0, "a").normal(index, (8,), step=1),
        Randomness(0, "a").normal(index + 2**33, (8,)),
    ]
    for i, x in enumerate(draws):
        assert not torch.equal(x[0], x[1])
        assert not any(torch.equal(x, y) for y in draws[:i])
    assert derive_key(1, "x", 23) != derive_key(1, "x", 2, 3) != derive_key(12, "x", 3)


def test_normals_are_normal_and_independent():
    x = Randomness(0, "law").normal(torch.arange(200), (1, 33, 31))
    assert kstest(x.flatten().double().numpy(), "norm").pvalue > 1e-3
    flat = x.flatten(1)
    assert abs(float(torch.corrcoef(flat[:, :40].T).fill_diagonal_(0).abs().max())) < 0.4
    # Box-Muller pairs lie half a row apart.
    half = flat.shape[1] // 2
    first, second = flat[:, :half].flatten(), flat[:, half : 2 * half].flatten()
    assert abs(float((first * second).mean())) < 5 / len(first) ** 0.5


def test_uniform_and_integers_are_flat_and_in_range():
    index = torch.arange(20_000)
    u = Randomness(0, "u").uniform(index)
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    assert kstest(u.double().numpy(), "uniform").pvalue > 1e-3
    counts = Randomness(0, "i").integers(index, 7).bincount(minlength=7)
    assert len(counts) == 7
    assert float((counts - 20_000 / 7).abs().max()) < 5 * (20_000 / 7) ** 0.5


def test_a_permutation_holds_everything_once_and_changes_with_the_step():
    source = Randomness(0, "order")
    first, second = source.permutation(50, 0), source.permutation(50, 1)
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert torch.equal(first, Randomness(0, "order").permutation(50, 0))
