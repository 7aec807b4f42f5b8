"""Distances of given features against scipy, brute force and closed forms."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ddpm.errors import DdpmError
from ddpm.evaluation import (
    Moments,
    Statistics,
    classifier_score,
    frechet_distance,
    frechet_from_statistics,
    kernel_distance,
    precision_recall,
    statistics_of,
)
from ddpm.evaluation.score import ScoreSums


def mixed(n, d, seed=0, offset=0.0):
    """`n` vectors of `d` numbers that hang together."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / math.sqrt(d) + offset + seed


# -- mean and covariance, batch by batch ---------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_moments_are_numpys_whatever_the_batches(size, offset):
    x = mixed(131, 9, offset=offset)  # 131 is prime: the last batch is never full
    moments = Moments(9)
    for first in range(0, len(x), size):
        moments.add(x[first : first + size])
    found = moments.statistics()
    assert found.count == 131
    np.testing.assert_allclose(found.mu, x.mean(0), rtol=1e-10)
    scale = np.abs(np.cov(x.T)).max()
    np.testing.assert_allclose(found.sigma, np.cov(x.T), rtol=1e-10, atol=1e-10 * scale)
    assert np.array_equal(found.sigma, found.sigma.T)


def test_moments_of_float32_are_those_of_the_same_numbers_in_float64():
    x = (mixed(500, 6) + 300).astype(np.float32)
    np.testing.assert_allclose(statistics_of(x).sigma, np.cov(x.astype(float).T), rtol=1e-10)


def test_moments_take_no_more_memory_for_more_images():
    def peak(n):
        moments = Moments(64)
        tracemalloc.start()
        for seed in range(n):
            moments.add(np.random.default_rng(seed).normal(size=(32, 64)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(100) < 1.2 * peak(5)


@pytest.mark.parametrize("n", [0, 1])
def test_moments_of_fewer_than_two_vectors_are_refused(n):
    with pytest.raises(DdpmError, match="two images"):
        statistics_of(np.zeros((n, 3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    x = mixed(9, 4)
    x[5, 2] = bad
    with pytest.raises(DdpmError, match="finite"):
        statistics_of(x)


# -- Frechet -------------------------------------------------------------------------------------


def by_scipy(a, b):
    root = sqrtm(a.sigma @ b.sigma)
    return ((a.mu - b.mu) ** 2).sum() + np.trace(a.sigma + b.sigma - 2 * np.real(root))


FULL = [(60, 50, 4), (500, 400, 40), (45, 300, 40), (2000, 90, 64), (9, 200, 8), (2, 2, 1)]
DEFICIENT = [(30, 20, 50), (10, 500, 50), (500, 10, 50), (51, 50, 50), (3, 3, 20)]


@pytest.mark.parametrize(("n", "m", "d"), FULL + DEFICIENT)
def test_the_frechet_distance_of_statistics_is_scipys(n, m, d):
    x, y = mixed(n, d), mixed(m, d, 1)
    a, b = statistics_of(x), statistics_of(y)
    found = frechet_from_statistics(a, b)
    assert found == pytest.approx(by_scipy(a, b), rel=1e-6)
    assert found == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert found == pytest.approx(frechet_from_statistics(b, a), rel=1e-10)


@pytest.mark.parametrize("d", [1, 5, 64])
def test_it_is_right_where_a_matrix_has_directions_without_variance(d):
    x, y = mixed(300, d), mixed(200, d, 1)
    x, y = np.c_[x, np.zeros((300, d)), x], np.c_[y, np.ones((200, d)), y]
    half = frechet_distance(x[:, :d], y[:, :d])
    found = frechet_from_statistics(statistics_of(x), statistics_of(y))
    assert isinstance(found, float)
    assert found == pytest.approx(2 * half + d, rel=1e-9)


@pytest.mark.parametrize("n", [5, 500])
def test_a_set_is_at_no_distance_from_itself(n):
    a = statistics_of(mixed(n, 30))
    assert abs(frechet_from_statistics(a, a)) < 1e-10 * np.trace(a.sigma)


def test_it_is_the_closed_form_of_gaussians_within_sampling_error():
    # Of N(0, 1) and N(m, s^2) in each of d directions: d (m^2 + (1 - s)^2).
    d, n, m, s = 8, 60_000, 0.5, 1.5
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), m + s * rng.normal(size=(n, d))
    found = frechet_from_statistics(statistics_of(x), statistics_of(y))
    assert found == pytest.approx(d * (m**2 + (1 - s) ** 2), rel=0.02)
    assert frechet_from_statistics(statistics_of(x), statistics_of(x[::-1] * -1)) < 0.01


def test_covariances_in_float32_do():
    a, b = statistics_of(mixed(40, 60)), statistics_of(mixed(50, 60, 1))
    rounded = [Statistics(z.mu, z.sigma.astype(np.float32).astype(float)) for z in (a, b)]
    assert frechet_from_statistics(*rounded) == pytest.approx(
        frechet_from_statistics(a, b), rel=1e-3
    )


def test_a_matrix_that_is_no_covariance_is_refused():
    good = statistics_of(mixed(50, 3))
    bad = Statistics(good.mu, good.sigma - 10 * np.eye(3))
    with pytest.raises(DdpmError, match="eigenvalue"):
        frechet_from_statistics(bad, good)
    with pytest.raises(DdpmError, match="same size"):
        frechet_from_statistics(good, statistics_of(mixed(50, 4)))


# -- the kernel distance -------------------------------------------------------------------------


def by_pairs(x, y):
    """Unbiased MMD^2, one pair after the other."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within += sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (12, 9, 5), (7, 30, 64), (25, 25, 3)])
@pytest.mark.parametrize("block", [4, 2048])
def test_the_kernel_distance_is_that_of_brute_force(n, m, d, block, monkeypatch):
    monkeypatch.setattr("ddpm.evaluation.kernel.BLOCK", block)
    x, y = mixed(n, d), mixed(m, d, 1)
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(by_pairs(x, y), rel=1e-6)
    assert (found.std, found.subsets, found.size) == (None, 1, min(n, m))


def test_of_large_sets_it_is_the_mean_over_seeded_subsets():
    x, y = mixed(40, 6), mixed(50, 6, 1)
    found = kernel_distance(x, y, subsets=5, size=11, seed=3)
    rng, values = np.random.default_rng(3), []
    for _ in range(5):
        a = x[np.sort(rng.choice(40, 11, replace=False))]
        values.append(by_pairs(a, y[np.sort(rng.choice(50, 11, replace=False))]))
    assert found.value == pytest.approx(np.mean(values), rel=1e-6)
    assert found.std == pytest.approx(np.std(values), rel=1e-6)
    assert found == kernel_distance(x, y, subsets=5, size=11, seed=3)
    assert found != kernel_distance(x, y, subsets=5, size=11, seed=4)


def test_it_is_unbiased():
    rng = np.random.default_rng(0)
    values = [
        kernel_distance(rng.normal(size=(8, 3)), rng.normal(size=(8, 3))).value for _ in range(2000)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(2000)
    assert np.std(values) > 0.1  # a biased one would lie far above 0


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5)])
def test_too_few_images_are_refused(n, m):
    with pytest.raises(DdpmError, match="two images"):
        kernel_distance(mixed(n, 3), mixed(m, 3))
    with pytest.raises(DdpmError, match="same size"):
        kernel_distance(mixed(5, 3), mixed(5, 4))


# -- precision and recall ------------------------------------------------------------------------


def by_balls(real, samples, k=3):
    """Both, one distance after the other."""

    def distance(a, b):
        return math.sqrt(((a - b) ** 2).sum())

    def share(probes, manifold):
        radii = [
            sorted(distance(a, b) for j, b in enumerate(manifold) if j != i)[k - 1]
            for i, a in enumerate(manifold)
        ]
        inside = [
            any(distance(p, a) <= r for a, r in zip(manifold, radii, strict=True)) for p in probes
        ]
        return np.mean(inside)

    return share(samples, real), share(real, samples)


def grid(n, d, seed):
    """Whole numbers, among which many distances are equal and many vectors too."""
    return np.random.default_rng(seed).integers(0, 4, (n, d)).astype(float)


PAIRS = {
    "far": lambda: (mixed(40, 4), mixed(30, 4, 1)),
    "near": lambda: (mixed(40, 4), mixed(30, 4) + 0.3),
    "many numbers": lambda: (mixed(20, 90), mixed(31, 90) * 1.1),
    "ties and copies": lambda: (grid(50, 2, 0), grid(40, 2, 1)),
    "one number": lambda: (grid(9, 1, 0), grid(9, 1, 1)),
    "the fewest": lambda: (grid(4, 3, 0), grid(4, 3, 1)),
    "all the same": lambda: (np.ones((5, 3)), np.ones((6, 3))),
    "far from 0": lambda: (grid(40, 3, 0) + 1e6, grid(40, 3, 1) + 1e6),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("block", [7, 1024])
def test_precision_and_recall_are_those_of_brute_force(name, block, monkeypatch):
    monkeypatch.setattr("ddpm.evaluation.manifolds.BLOCK", block)
    real, samples = PAIRS[name]()
    assert precision_recall(real, samples) == pytest.approx(by_balls(real, samples))
    assert precision_recall(samples, real)[0] == precision_recall(real, samples)[1]


def test_images_that_are_all_copies_of_real_ones_are_found_though_balls_are_points():
    real = np.repeat(mixed(10, 33), 4, axis=0)  # with three copies each a ball reaches nothing else
    assert precision_recall(real, real[::3]) == (1.0, pytest.approx(by_balls(real, real[::3])[1]))
    assert precision_recall(real, real[::4] + 1e-3)[0] == 0


def test_what_the_measures_mean():
    rng = np.random.default_rng(0)
    two = np.r_[rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 50]
    one_mode = rng.normal(size=(400, 2))
    precision, recall = precision_recall(two, one_mode)
    assert precision > 0.9  # what is drawn is good, and half is never drawn
    assert recall == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("n", "m"), [(3, 9), (9, 3), (0, 9), (1, 1)])
def test_no_neighbours_are_refused(n, m):
    with pytest.raises(DdpmError, match="at least 4 images"):
        precision_recall(mixed(n, 2), mixed(m, 2))


# -- the classifier's score ----------------------------------------------------------------------


def probabilities(n, k=10, sharpness=4.0, seed=0):
    x = np.exp(sharpness * np.random.default_rng(seed).normal(size=(n, k)))
    return x / x.sum(1, keepdims=True)


def by_hand(p):
    """exp of the mean KL to the mean, as its authors write it."""
    return math.exp(np.mean((p * (np.log(p) - np.log(p.mean(0)))).sum(1)))


@pytest.mark.parametrize(("n", "splits"), [(1000, 10), (999, 9), (250, 2), (199, 1), (5, 1)])
def test_the_score_is_that_of_the_formula_over_a_seeded_shuffle(n, splits):
    p = probabilities(n)
    found = classifier_score(p, seed=5)
    place = np.random.default_rng(5).permutation(n)
    shuffled = p[np.argsort(place)]
    parts = [by_hand(shuffled[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    assert found.splits == splits
    assert found.value == pytest.approx(np.mean(parts), rel=1e-6)
    assert found.whole == pytest.approx(by_hand(p), rel=1e-6)
    assert found.std == (None if splits == 1 else pytest.approx(np.std(parts), rel=1e-6))
    assert found.known == np.mean(p.max(1) > 0.9)
    assert found.count == n


def test_a_set_that_is_sorted_by_class_has_the_score_of_a_shuffled_one():
    p = 0.001 / 9 * np.ones((5000, 10))
    p[np.arange(5000), np.arange(5000) // 500] = 0.999  # 500 of each class in a row
    shuffled = np.random.default_rng(9).permutation(p)
    found, other = classifier_score(p), classifier_score(shuffled)
    assert found.value == pytest.approx(other.value, rel=0.02)
    assert found.whole == pytest.approx(other.whole, rel=1e-12)
    assert found.value > 9
    consecutive = np.mean([by_hand(p[i * 500 : (i + 1) * 500]) for i in range(10)])
    assert consecutive < 1.1  # what chunks of the sorted set would say


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_it_is_the_same_in_any_batches(size):
    p, sums = probabilities(501), ScoreSums(501)
    for first in range(0, 501, size):
        sums.add(p[first : first + size])
    found, whole = sums.score(), classifier_score(p)
    assert found.value == pytest.approx(whole.value, rel=1e-12)
    assert found.std == pytest.approx(whole.std, rel=1e-9)


def test_probabilities_of_0_and_1_have_the_scores_of_their_limits():
    assert classifier_score(np.eye(10)[np.arange(1000) % 10]).value > 9.5
    assert classifier_score(np.eye(10)[np.zeros(1000, int)]).value == pytest.approx(1)
    assert classifier_score(np.full((1000, 10), 0.1)).value == pytest.approx(1)


@pytest.mark.parametrize(
    "bad", [np.ones((5, 3)), -np.ones((5, 1)), np.full((5, 2), np.nan), np.zeros((5, 4))], ids=str
)
def test_what_are_no_probabilities_are_refused(bad):
    with pytest.raises(DdpmError, match="probabilities"):
        classifier_score(bad)


def test_a_count_that_is_wrong_is_told():
    sums = ScoreSums(10)
    sums.add(probabilities(7))
    with pytest.raises(DdpmError, match="7 of 10"):
        sums.score()
    with pytest.raises(DdpmError, match="more images"):
        sums.add(probabilities(4))
    with pytest.raises(DdpmError, match="at least one"):
        classifier_score(np.zeros((0, 3)))
