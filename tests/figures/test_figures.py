"""The pictures: where each pixel of a grid lies, and which moments a strip shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.exact_files import save_png
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.figures.curves import loss_curve
from ddpm.figures.grid import image_grid
from ddpm.figures.neighbours import neighbours_figure
from ddpm.figures.progressive import ProgressiveRecorder, progressive_strip
from ddpm.sampling import SampleState
from helpers import tiny_model

GREY, COLOUR = ImageFormat(1, 2, 2), ImageFormat(3, 2, 3)
DIGITS = ImageFormat(1, 2, 2, 17)


def grey(*values, side=2):
    """Images of one grey value each."""
    column = torch.tensor(values, dtype=torch.uint8)
    return column.reshape(-1, 1, 1, 1).expand(-1, 1, side, side).contiguous()


@pytest.mark.parametrize(("levels", "step"), [(2, 255), (16, 17), (256, 1)])
def test_grey_levels_are_spread_over_0_to_255(levels, step):
    values = ImageFormat(1, 2, 2, levels).to_display(grey(*range(levels)))[:, 0, 0, 0]
    assert values.tolist() == [step * i for i in range(levels)]


def test_17_levels_are_rounded_to_the_nearest_of_256():
    values = ImageFormat(1, 2, 2, 17).to_display(grey(*range(17)))[:, 0, 0, 0]
    assert np.abs(values - np.arange(17) * 255 / 16).max() <= 0.5
    assert (values[0], values[16]) == (0, 255)


def test_a_grid_puts_every_pixel_where_it_belongs():
    images = torch.arange(5 * 3 * 2 * 3, dtype=torch.uint8).reshape(5, 3, 2, 3)
    pixels = np.asarray(image_grid(images, COLOUR, columns=2, scale=1))
    # 3 rows of 2, a border of one white pixel around each.
    assert pixels.shape == (3 * 3 + 1, 2 * 4 + 1, 3)
    expected = np.full((10, 9, 3), 255)
    for i, (y, x) in enumerate([(1, 1), (1, 5), (4, 1), (4, 5), (7, 1)]):
        for row in range(2):
            for column in range(3):
                expected[y + row, x + column] = images[i, :, row, column]
    assert np.array_equal(pixels, expected)


def test_a_grid_is_enlarged_pixel_by_pixel():
    images = torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8)
    small = np.asarray(image_grid(images, COLOUR, scale=1))
    large = np.asarray(image_grid(images, COLOUR, scale=3))
    assert np.array_equal(large, np.kron(small, np.ones((3, 3, 1), np.uint8)))


@pytest.mark.parametrize(("side", "scale"), [(8, 32), (32, 15), (64, 8), (256, 2), (600, 1)])
def test_small_pictures_are_enlarged_to_about_512_pixels_by_default(side, scale):
    assert image_grid(grey(0, side=side), GREY).size == ((side + 2) * scale,) * 2


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (5, 3, 2), (10, 4, 3)])
def test_a_grid_is_about_square_by_default(n, columns, rows):
    assert image_grid(grey(*[0] * n), GREY, scale=1).size == (columns * 3 + 1, rows * 3 + 1)


def test_grids_are_png_whatever_the_name_so_that_no_pixel_changes(tmp_path):
    picture = image_grid(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), COLOUR)
    save_png(picture, tmp_path / "deep" / "grid.jpg")
    with Image.open(tmp_path / "deep" / "grid.jpg") as written:
        assert written.format == "PNG"
        assert np.array_equal(np.asarray(written), np.asarray(picture))


def state(index, value, count=3, first=0):
    """What a sampler shows at `index`: every predicted pixel is grey level `value` of 17."""
    x = DIGITS.to_unit(grey(*[value] * count))
    return SampleState(index, index, torch.zeros_like(x), x, first)


def test_the_recorder_picks_the_first_the_last_and_even_moments_between():
    recorder = ProgressiveRecorder(3, DIGITS, steps=17, moments=5)
    for i, index in enumerate(range(16, -1, -1)):
        recorder(state(index, i))
    frames = recorder.frames()
    assert frames.shape == (3, 5, 1, 2, 2)
    assert frames[1, :, 0, 0, 0].tolist() == [0, 4, 8, 12, 16]


def test_the_recorder_keeps_every_moment_of_a_short_chain_once():
    recorder = ProgressiveRecorder(3, DIGITS, steps=3)
    for i, index in enumerate([2, 1, 0]):
        recorder(state(index, i))
    assert recorder.frames()[0, :, 0, 0, 0].tolist() == [0, 1, 2]


def test_the_recorder_keeps_the_first_images_whatever_batches_they_come_in():
    recorder = ProgressiveRecorder(4, DIGITS, steps=2)
    for batch in range(3):
        for index in (1, 0):
            recorder(state(index, 10 * batch % 17 + index, first=3 * batch))
    assert recorder.frames().shape == (4, 2, 1, 2, 2)
    assert recorder.frames()[:, :, 0, 0, 0].tolist() == [[1, 0]] * 3 + [[11, 10]]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_last_frame_of_a_sampled_chain_is_the_sample_itself(batch_size):
    model = tiny_model()
    recorder = ProgressiveRecorder(8, model.format, steps=20)
    images = model.sample(10, callback=recorder, batch_size=batch_size)
    # At t = 0 the posterior's mean is the predicted x_0 and no noise is added (Algorithm 2).
    assert torch.equal(recorder.frames()[:, -1], images[:8])


def test_a_strip_has_a_row_an_image_and_time_runs_to_the_right():
    frames = torch.stack([grey(0, 1, 2), grey(3, 4, 5)])  # 2 images, 3 moments
    pixels = np.asarray(progressive_strip(frames, GREY))
    scale = 32
    middles = pixels[scale * 2 :: scale * 3, scale * 2 :: scale * 3, 0]
    assert middles.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_neighbours_stand_below_their_image_nearest_first():
    training = grey(0, 50, 100, 200)
    pixels = np.asarray(neighbours_figure(grey(90, 10), training, GREY, k=2))
    scale = 32
    middles = pixels[scale * 2 :: scale * 3, scale * 2 :: scale * 3, 0]
    assert middles.tolist() == [[90, 10], [100, 0], [50, 50]]


def test_a_training_image_is_at_distance_0_from_itself_and_one_level_is_counted():
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    indices, distances = nearest_neighbours(images, images)
    assert indices[:, 0].tolist() == list(range(20))
    assert distances.abs().max() == 0
    nudged = grey(7)
    nudged[0, 0, 0, 0] = 8
    assert nearest_neighbours(nudged, grey(7))[1].item() == 1


def test_a_loss_curve_needs_a_loss():
    with pytest.raises(DdpmError, match=r"stats\.jsonl is empty"):
        loss_curve([])


def test_a_loss_curve_is_drawn_even_of_a_single_point():
    picture = loss_curve([{"step": 1, "loss": 0.5}])
    assert (picture.mode, picture.size) == ("RGB", (720, 360))
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 2
