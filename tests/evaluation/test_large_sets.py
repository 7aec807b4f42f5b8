"""Measures of many and of large images: right, and in memory that does not grow with them."""

import math
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from ddpm.cli import main
from ddpm.data.images import ImageFormat, MemoryImages
from ddpm.errors import DdpmError
from ddpm.evaluation import frechet_distance, pixel_frechet_distance
from ddpm.likelihood.plan import Plan
from helpers import checkpoint_path, measured_model, tiny_images, tiny_model

# -- the Frechet distance ------------------------------------------------------------------------


def normal(n, d, seed=0):
    """`n` vectors of `d` numbers that hang together."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.linspace(0.2, 2, d) + rng.normal(size=(n, 1)) + seed


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [(60, 50, 4), (60, 50, 40), (45, 41, 40), (30, 12, 8), (9, 200, 8), (2, 2, 1), (3, 50, 1)],
)
def test_it_equals_scipys_matrix_root(n, m, d):
    x, y = normal(n, d), normal(m, d, 1)
    a, b = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(5, 7, 40), (7, 5, 40), (5, 60, 40), (60, 5, 40), (2, 2, 300), (20, 21, 40)]
)
def test_it_equals_the_eigenvalues_where_there_are_fewer_images_than_numbers(n, m, d):
    x, y = normal(n, d), normal(m, d, 1)
    a, b = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-5)


def variance(x):
    return x.var(axis=0, ddof=1).sum()


CLOSED = {
    "itself": lambda x: (x, 0.0),
    "in another order": lambda x: (x[::-1].copy(), 0.0),
    "moved": lambda x: (x + 0.5, 0.25 * x.shape[1]),
    "mirrored": lambda x: (-x, 4 * (x.mean(0) ** 2).sum()),
    "stretched": lambda x: (3 * x, 4 * ((x.mean(0) ** 2).sum() + variance(x))),
    "shrunk to a point": lambda x: (0 * x, (x.mean(0) ** 2).sum() + variance(x)),
    "in numbers of its own": lambda x: (
        np.roll(x, x.shape[1] // 2, axis=1),
        ((x.mean(0) - np.roll(x, x.shape[1] // 2, axis=1).mean(0)) ** 2).sum() + 2 * variance(x),
    ),
}


@pytest.mark.parametrize("shape", [(6, 12), (40, 12), (6, 700), (4, 12_288), (3, 196_608)], ids=str)
@pytest.mark.parametrize("name", CLOSED)
def test_it_equals_the_closed_form_at_any_size_in_little_memory(name, shape):
    n, d = shape
    x = normal(n, d)
    if name == "in numbers of its own":
        x[:, d // 2 :] = 0
    y, expected = CLOSED[name](x)
    tracemalloc.start()
    try:
        found = frechet_distance(x, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * variance(x))
    assert found >= -1e-7 * variance(x)
    assert peak < 20 * x.nbytes + 2**20  # no matrix of d x d


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1000])
def test_it_is_computed_in_double_precision(dtype, offset):
    x, y = (normal(n, 64, s).astype(dtype) for n, s in ((20, 0), (30, 1)))
    exact = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    moved = frechet_distance((x + offset).astype(np.float64), (y + offset).astype(np.float64))
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-9)
    assert moved == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("side", [8, 64, 256])
def test_pictures_that_are_a_little_lighter_are_as_far_as_that(side):
    image_format = ImageFormat(3, side, side)
    x = torch.randint(0, 200, (4, 3, side, side), dtype=torch.uint8)
    distance = pixel_frechet_distance(x, x + 10, image_format)
    assert distance == pytest.approx(3 * side**2 * (20 / 255) ** 2, rel=1e-4)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5), (1, 1)])
def test_too_few_are_refused(n, m):
    with pytest.raises(DdpmError):
        frechet_distance(normal(n, 12), normal(m, 12))


# -- bits/dim ------------------------------------------------------------------------------------


class Watched:
    """A source that notes how many images are asked for at a time, and how many are kept."""

    name = "watched"

    def __init__(self, images):
        self.images, self.format = images, MemoryImages(images, 17).format
        self.asked, self.given, self.kept = [], [], 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        self.kept = max(self.kept, sum(batch() is not None for batch in self.given))
        batch = self.images[indices].clone()
        self.asked.append(indices.tolist())
        self.given.append(weakref.ref(batch))
        return batch

    def seen_once(self):
        return sorted(i for batch in self.asked for i in batch) == list(range(len(self)))


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (8, 4), (30, 1), (40, 16), (5, 100)])
def test_a_set_is_read_once_one_batch_at_a_time(n, size):
    source = Watched(tiny_images(n).images)
    bound = tiny_model().bound(source, plan=Plan(3), batch_size=size)
    assert max(map(len, source.asked)) <= size
    assert source.seen_once()
    assert source.kept <= 2
    assert bound.total.shape == bound.prior.shape == (n,)


@pytest.mark.parametrize("n", [1, 7, 600])
def test_what_is_kept_of_an_image_are_two_numbers(n):
    bound = tiny_model().bound(tiny_images(n), batch_size=256)
    for name in ("terms", "xstart_mse", "eps_mse"):
        assert getattr(bound, name).shape == (20,), name
    held = sum(np.asarray(value).nbytes for value in vars(bound).values())
    assert held <= 2 * 8 * n + 6 * 8 * 21


@pytest.mark.parametrize("make", [tiny_model, measured_model], ids=["unmeasured", "measured"])
@pytest.mark.parametrize("plan", [Plan(), Plan(4)], ids=["all steps", "4 steps"])
def test_means_over_images_are_the_same_in_any_batches(make, plan):
    model, images = make(), tiny_images(7)
    whole = model.bound(images, plan=plan, batch_size=7)
    for size in (1, 3, 100):
        parts = model.bound(images, plan=plan, batch_size=size)
        assert parts.total == pytest.approx(whole.total, rel=1e-4)
        for name in ("terms", "xstart_mse", "eps_mse"):
            assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-3), name
    assert whole.mean == pytest.approx(whole.prior.mean() + whole.terms.sum())
    assert whole.mean == pytest.approx(whole.total.mean())
    assert whole.standard_error == pytest.approx(whole.total.std(ddof=1) / math.sqrt(7))
    assert whole.rate_distortion()["rate"][-1] == pytest.approx(whole.mean)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_evaluate_reads_a_large_set_in_batches_too(size, tmp_path, monkeypatch):
    source = Watched(tiny_images(7).images)
    monkeypatch.setattr("ddpm.cli.evaluate.open_for", lambda *_, **__: source)
    blank = Image.new("L", (2, 2))
    monkeypatch.setattr("ddpm.cli.results.rate_distortion_plot", lambda bound: blank)
    measured_model().save(checkpoint_path(tmp_path / "run", 1))
    options = ["--bpd", "--steps", "3", "--batch-size", str(size)]
    assert main(["evaluate", str(tmp_path / "run"), *options]) == 0
    assert max(map(len, source.asked)) <= size
    assert source.seen_once()
    assert source.kept <= 2


def test_a_bad_image_of_a_large_set_is_refused_whatever_its_place():
    images = tiny_images(9).images
    images[8] = 200  # the model has 17 grey levels
    with pytest.raises(DdpmError, match="200"):
        tiny_model().bound(Watched(images), plan=Plan(2), batch_size=2)
