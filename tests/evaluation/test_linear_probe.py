"""Linear probes: the accuracy that is known, chance for permuted labels, and the figure."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import ddpm
from ddpm.data.digits import digits
from ddpm.errors import DdpmError
from ddpm.evaluation.linear_probe import Accuracy, folded_accuracy, probe_accuracy, told_by
from ddpm.figures.probe import Probe
from helpers import tiny_model
from typecheck import unchecked

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import linear_probe

PAGE = Path(__file__).parents[2] / "docs" / "representations.md"


def within(accuracy, expected):
    """Whether an accuracy is within four standard errors of what it is of."""
    return abs(accuracy.value - expected) < 4 * math.sqrt(
        expected * (1 - expected) / accuracy.images
    )


def test_two_gaussians_are_told_apart_as_often_as_can_be():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 4000)
    x = generator.normal(size=(4000, 3))
    x[:, 1] += 2.0 * labels  # means 2 apart: the best is right with probability Phi(1)
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert within(probe_accuracy(x[:2000], labels[:2000], x[2000:], labels[2000:]), best)
    assert within(folded_accuracy(x, labels), best)
    # Shifts and units do not matter, and a feature that is constant says nothing.
    units = np.array([1e3, 1e-4, 7.0])  # a penalty without units would drop what tells the classes
    moved = np.concatenate([units * x - 5, np.ones((4000, 1))], axis=1)
    assert folded_accuracy(moved, labels) == folded_accuracy(x, labels)


def test_the_probe_is_ridge_regression_on_the_classes_indicators():
    generator = np.random.default_rng(1)
    x, labels = generator.normal(size=(60, 4)), np.arange(60) % 3
    x[:, 0] += labels
    mean, scale = x.mean(0), x.std(0)
    z, y = (x - mean) / scale, 2.0 * np.eye(3)[labels] - 1
    told = told_by(x, labels, x)
    # By hand with every penalty, of which the one with the least error of leaving one out is taken.
    found = []
    for penalty in 10.0 ** np.arange(-2, 6):
        weights = np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T @ (y - y.mean(0)))
        values = z @ weights + y.mean(0)
        hat = z @ np.linalg.solve(z.T @ z + penalty * np.eye(4), z.T) + 1 / 60
        error = ((y - values) / (1 - np.diag(hat))[:, None]) ** 2
        found.append((error.mean(), values.argmax(1)))
    assert np.array_equal(told, min(found, key=lambda entry: entry[0])[1])


@pytest.fixture(scope="module")
def held():
    """Activations of a network that was never trained, which are still a view of the image."""
    images, model = digits("train"), tiny_model(timesteps=100)
    return images, {t: model.features(images, t, "middle2").numpy() for t in (1, 100)}


def test_permuted_labels_are_told_by_chance(held):
    images, features = held
    labels = images.labels.numpy()
    assert folded_accuracy(features[1], labels).value > 0.3
    permuted = np.random.default_rng(2).permutation(labels)
    assert within(folded_accuracy(features[1], permuted), 0.1)


def test_a_probe_is_scored_on_what_it_was_not_fitted_on():
    generator = np.random.default_rng(3)
    x, labels = generator.normal(size=(400, 200)), generator.integers(0, 2, 400)
    x[:, 0] += labels
    best = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))  # Phi(1/2), with 199 features to be misled by
    assert folded_accuracy(x, labels).value < best
    assert np.mean(told_by(x, labels, x) == labels) > best + 0.1


def test_of_pure_noise_nothing_can_be_told(held):
    images, features = held  # abar_100 is 3e-5
    assert within(folded_accuracy(features[100], images.labels.numpy()), 0.1)


def test_the_figure_draws_what_the_probes_find():
    model, images = tiny_model(), digits("test")
    figure = Probe(n=90, t=(2, 20), layers=("middle2", "conv_in"))
    found = figure.probed(model, images)
    picked = np.arange(90) * len(images) // 90
    chosen, labels = images.images[picked], images.labels.numpy()[picked]
    for layer, values in found.layers.items():
        for t, accuracy in zip((2, 20), values, strict=True):
            x = model.features(chosen, t, layer).numpy()
            assert abs(folded_accuracy(x, labels).value - accuracy.value) < 0.03  # rounding
    pixels = chosen.flatten(1).double().numpy() / 8 - 1
    assert found.pixels == folded_accuracy(pixels, labels)
    assert found.classifier is None
    assert found.commonest == pytest.approx(np.bincount(labels).max() / 90)
    drawn = figure.draw(model, images)
    assert f"{found.best[0]} at t = {found.best[1]}" in drawn.caption


def test_mistakes_are_one_sentence():
    with pytest.raises(DdpmError, match="labels, and these have none"):
        Probe(t=(3,)).draw(tiny_model(), digits("test").images)
    with pytest.raises(DdpmError, match="at least two classes"):
        told_by(np.zeros((3, 2)), np.zeros(3, int), np.zeros((1, 2)))
    with unchecked(), pytest.raises(DdpmError, match="2 labels for 3 images"):
        told_by(np.zeros((3, 2)), np.zeros(2, int), np.zeros((1, 2)))
    with pytest.raises(DdpmError, match="cannot be cut into 3 parts"):
        folded_accuracy(np.zeros((2, 2)), np.zeros(2, int))


def test_an_accuracy_says_how_sure_it_is():
    assert str(Accuracy(0.9, 100)) == "90.0 ± 3.0 %"


def test_the_example_measures_a_model_of_digits(tmp_path, capsys):
    path = tmp_path / "tiny.safetensors"
    tiny_model().save(path)
    options = ["--t", "1", "--layers", "middle2", "--fit", "600", "--score", "100"]
    found = linear_probe.main([str(path), "digits", *options])
    assert list(found) == ["pixels", "middle2, t = 1"]
    assert found["pixels"].value > 0.8
    assert "fitted on 600 images, scored on 100" in capsys.readouterr().out


@pytest.mark.slow
def test_the_classifier_that_ships_is_measured_beside_a_model_of_its_images():
    images = ddpm.load("cifar10-small", device="cpu").sample(4, steps=2)
    assert linear_probe.of_the_classifier(images, np.zeros(4, int)).images == 4


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    code = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(code, {})
