"""The Frechet distance against scipy and the closed form; the recogniser on digits and noise."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ddpm.data.digits import digits
from ddpm.errors import DdpmError
from ddpm.evaluation import DigitRecogniser, frechet_distance, pixel_frechet_distance
from ddpm.evaluation.neighbours import nearest_neighbours


def test_the_frechet_distance_equals_scipys_matrix_root():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    y = rng.normal(size=(150, 6)) @ rng.normal(size=(6, 6)) + 1
    a, b = np.cov(x.T), np.cov(y.T)
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = mean + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_in_one_dimension_it_is_the_distance_of_means_and_deviations():
    x, y = np.array([[0.0], [2.0]]), np.array([[10.0], [16.0]])
    expected = 12.0**2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected)


def test_too_few_images_or_other_sizes_are_refused():
    with pytest.raises(DdpmError, match="two images"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(DdpmError, match="same size"):
        frechet_distance(np.zeros((5, 2)), np.zeros((5, 3)))


def test_real_digits_are_recognised_and_near_each_other_and_noise_is_not():
    train, held_out = digits("train"), digits("test")
    recogniser = DigitRecogniser(train)
    noise = torch.randint(0, 17, (100, 1, 8, 8), dtype=torch.uint8)
    assert 0.8 < recogniser.fraction(held_out.images) < 0.95
    assert recogniser.fraction(noise) < 0.05
    near = pixel_frechet_distance(train.images, held_out.images, held_out.format)
    assert near == pytest.approx(0.465, abs=0.01)
    assert pixel_frechet_distance(noise, held_out.images, held_out.format) > 20 * near


def test_nearest_neighbours_are_those_of_brute_force():
    images, training = digits("test").images[:7], digits("train").images[:50]
    indices, distances = nearest_neighbours(images, training, k=3)
    for i, image in enumerate(images):
        by_hand = sorted(
            (float(((image.double() - other.double()) ** 2).sum()) ** 0.5, j)
            for j, other in enumerate(training)
        )
        assert distances[i].tolist() == pytest.approx([d for d, _ in by_hand[:3]])
        assert [by_hand[k][0] for k in range(3)] == pytest.approx(
            [dict((j, d) for d, j in by_hand)[int(n)] for n in indices[i]]
        )
