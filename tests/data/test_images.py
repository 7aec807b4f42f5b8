"""Grey levels to [-1, 1] and back, and the embedded digits."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ddpm.data.digits import digits
from ddpm.data.images import ImageFormat, MemoryImages, byte_mse, psnr, unit_to_byte_rmse
from ddpm.errors import DdpmError


def of(levels):
    """A format with that many grey levels."""
    return ImageFormat(1, 8, 8, levels)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_grey_level_survives_the_round_trip(levels):
    grey = torch.arange(levels, dtype=torch.uint8)
    assert torch.equal(of(levels).from_unit(of(levels).to_unit(grey)), grey)
    assert np.array_equal(of(levels).from_bytes(of(levels).to_bytes(grey.numpy())), grey.numpy())


def test_looked_up_grey_levels_are_those_of_the_formula():
    values = np.arange(256, dtype=np.uint8)
    for levels in range(2, 257):
        grey = values[:levels]
        spread = np.round(grey * (255 / (levels - 1))).astype(np.uint8)
        nearest = np.round(values * ((levels - 1) / 255)).astype(np.uint8)
        assert np.array_equal(of(levels).to_bytes(grey), spread)
        assert np.array_equal(of(levels).from_bytes(values), nearest)


def test_pixels_of_any_shape_and_order_are_looked_up():
    grey = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    for pixels in (grey, grey.transpose(2, 0, 1), grey[:, ::2], grey[:0], grey[0, 0, 0]):
        found = of(17).to_bytes(np.asarray(pixels))
        assert np.array_equal(found, np.round(pixels * (255 / 16)).astype(np.uint8))
        assert found.flags.writeable


def test_no_pixel_takes_more_than_a_few_bytes_on_its_way():
    grey = np.zeros((1000, 1000), np.uint8)
    tracemalloc.start()
    of(17).from_bytes(of(17).to_bytes(grey))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * grey.size


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_grey_levels_are_spread_evenly_over_minus_one_to_one(levels):
    x = of(levels).to_unit(torch.arange(levels, dtype=torch.uint8))
    expected = torch.linspace(-1, 1, levels, dtype=torch.float64)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, atol=2e-7, rtol=0)


def test_256_levels_are_the_papers_division_by_127_5():
    grey = torch.arange(256, dtype=torch.uint8)
    expected = grey.double() / 127.5 - 1
    torch.testing.assert_close(of(256).to_unit(grey).double(), expected, atol=2e-7, rtol=0)


def test_a_float_goes_to_the_nearest_grey_level_and_the_outside_to_the_ends():
    # 3 levels sit at -1, 0, 1, so the borders between them are at -0.5 and 0.5.
    x = torch.tensor([-7.0, -1.0, -0.51, -0.49, 0.0, 0.49, 0.51, 1.0, 7.0])
    assert of(3).from_unit(x).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_memory_images_are_read_by_index_and_know_their_shape():
    images = MemoryImages(torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2))
    assert (len(images), images.format) == (3, ImageFormat(1, 2, 2))
    assert images[torch.tensor([2, 0])].flatten().tolist() == [8, 9, 10, 11, 0, 1, 2, 3]


def test_digits_are_1500_and_297_of_8x8_with_17_levels():
    for split, count in (("train", 1500), ("test", 297)):
        data = digits(split)
        assert (len(data), data.format) == (count, ImageFormat(1, 8, 8, 17))
        assert len(data.labels) == count
        assert data.images.unique().tolist() == list(range(17))


def test_the_digit_splits_are_disjoint_and_together_are_the_whole_set():
    data = load_digits()
    whole = [tuple(image.astype(int).ravel()) for image in data.images]
    assert len(set(whole)) == 1797  # so that images can be told apart by their pixels
    train, test = (
        [tuple(image.flatten().tolist()) for image in digits(split).images]
        for split in ("train", "test")
    )
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(whole)


def test_every_digit_keeps_its_label():
    data = load_digits()
    label = {
        tuple(image.astype(int).ravel()): int(target)
        for image, target in zip(data.images, data.target, strict=True)
    }
    test = digits("test")
    found = [label[tuple(image.flatten().tolist())] for image in test.images]
    assert test.labels.tolist() == found


def test_the_digit_split_is_balanced_and_does_not_follow_the_global_seeds():
    first = digits("test")
    torch.manual_seed(99)
    assert torch.equal(digits("test").images, first.images)
    counts = torch.bincount(first.labels, minlength=10)
    assert counts.min() >= 28  # 297 / 10, within the classes' own imbalance
    assert counts.max() <= 31


@pytest.mark.parametrize("numbers", [(0, 8, 8, 256), (1, 0, 8, 256), (1, 8, 8, 1), (1, 8, 8, 257)])
def test_a_format_that_no_image_has_is_refused(numbers):
    with pytest.raises(DdpmError, match="at least one channel"):
        ImageFormat(*numbers)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(2, 1, 8, 8), "type uint8, got torch.float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"shape \(1, 8, 8\), got \(3, 8, 8\)"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), "expects images of shape"),
        (torch.full((2, 1, 8, 8), 17, dtype=torch.uint8), r"0\.\.16, but the images have 17"),
    ],
)
def test_images_of_another_format_are_refused_in_a_sentence(images, words):
    with pytest.raises(DdpmError, match=words):
        of(17).check(images)
    of(17).check(torch.full((2, 1, 8, 8), 16, dtype=torch.uint8))


def test_errors_on_0_to_255_and_psnr_are_the_textbooks():
    a, b = torch.tensor([0, 16], dtype=torch.uint8), torch.tensor([16, 16], dtype=torch.uint8)
    assert byte_mse(a, b, of(17)) == pytest.approx(255**2 / 2)
    assert unit_to_byte_rmse(np.array([4.0, 0.0])).tolist() == [255, 0]  # -1 for 1, and exact
    assert psnr(255.0**2) == 0
    assert psnr(6.5025) == pytest.approx(40.0)
    assert psnr(0.0) == float("inf")
