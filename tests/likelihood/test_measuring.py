"""A denoising error at fewer timesteps, of large images, and in as many images at a time as fit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm.codec.transmission import Walk
from ddpm.data.images import ImageFormat, MemoryImages
from ddpm.errors import DdpmError
from ddpm.likelihood.denoising_error import (
    DenoisingError,
    measure_denoising_error,
    measured_timesteps,
)
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import even_timesteps, optimal_timesteps, predicted_bpd
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter
from helpers import tiny_config, tiny_images, tiny_model
from typecheck import unchecked

T = 20  # of the tiny model


def images_of(side, n, seed=1):
    """`n` random images of side x side pixels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 17, (n, 1, side, side), generator=generator)
    return MemoryImages(pixels.to(torch.uint8), 17, "noise")


class Shrinking(torch.nn.Module):
    """A network that costs nothing, and remembers how many images each call had."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.sizes = []

    def forward(self, x, t):
        self.sizes.append(len(x))
        return self.factor * x


def model_of(side):
    """A model of that network."""
    config = tiny_config()
    config = replace(config, data=replace(config.data, image_size=side))
    return Ddpm(config, ImageFormat(1, side, side, 17), Shrinking())


# -- at which timesteps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "count"),
    [(2, 2), (5, 4), (20, 2), (20, 19), (20, 20), (1000, 2), (1000, 3), (1000, 130), (1000, 999)],
)
def test_as_many_timesteps_as_are_asked_for_rise_from_the_first_to_the_last(total, count):
    times = measured_timesteps(total, count)
    assert len(times) == count
    assert (times[0], times[-1]) == (0, total - 1)
    assert (np.diff(times) > 0).all()


def test_early_timesteps_are_measured_more_densely():
    gaps = np.diff(measured_timesteps(1000, 12))
    assert (np.diff(gaps) >= 0).all()
    assert gaps[0] < gaps[-1] / 20


@pytest.mark.parametrize("count", [-1, 0, 1, T + 1])
def test_a_number_of_timesteps_out_of_range_gives_a_sentence(count):
    with pytest.raises(DdpmError, match=rf"must lie in 2\.\.20, all .* has, got {count}$"):
        tiny_model().measure(tiny_images(), timesteps=count)


def table(error, times):
    """What would have been measured at some of the timesteps."""
    xstart_mse = error.at(times).astype(np.float32)
    return DenoisingError(times, xstart_mse, error.decoder_at(times), error.images)


def farthest(few, whole, total):
    """The largest difference of the logarithms of the mean errors at any timestep."""
    curves = [error.at(np.arange(total)).reshape(total, -1).mean(axis=1) for error in (few, whole)]
    return np.abs(np.log(curves[0] / curves[1])).max()


@pytest.mark.parametrize("count", [8, 16, 32])
def test_between_few_timesteps_a_real_networks_error_is_nearer_than_between_even_ones(count):
    whole = load("cifar10-small", "cpu").denoising_error
    ours = table(whole, measured_timesteps(1000, count))
    even = table(whole, even_timesteps(1000, count))
    assert farthest(ours, whole, 1000) < 0.3 * farthest(even, whole, 1000)


@pytest.mark.slow
def test_sixteen_timesteps_lose_hardly_any_bits():
    """The trajectory that they choose costs as much as the best, by the whole table."""
    model = load("cifar10-small", "cpu")
    schedule, whole = model.diffusion.schedule, model.denoising_error
    few = table(whole, measured_timesteps(1000, 16))
    for steps in (10, 50):
        chosen, best = (optimal_timesteps(schedule, error, steps) for error in (few, whole))
        lost = predicted_bpd(schedule, whole, chosen) - predicted_bpd(schedule, whole, best)
        assert lost < 0.02


def test_few_timesteps_are_exact_where_measured_and_near_between():
    whole, few = tiny_model(), tiny_model()
    whole.measure(tiny_images(40))
    few.measure(tiny_images(40), timesteps=8)
    assert len(whole.denoising_error.timesteps) == T
    known = few.denoising_error.timesteps
    assert known.tolist() == measured_timesteps(T, 8).tolist()
    assert np.array_equal(few.denoising_error.xstart_mse, whole.denoising_error.xstart_mse[known])
    assert np.array_equal(few.denoising_error.decoder_bpd, whole.denoising_error.decoder_bpd[known])
    assert 0 < farthest(few.denoising_error, whole.denoising_error, T) < 0.15
    ends = table(whole.denoising_error, np.array([0, T - 1]))
    assert farthest(ends, whole.denoising_error, T) > 0.5
    assert few.chain(Plan(4, "optimal", "analytic")).num_timesteps == 4


# -- how many images at a time -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "height", "width", "batch"),
    [
        *[(64, 8, 8, 64), (64, 28, 28, 64), (64, 32, 32, 64), (64, 16, 64, 64), (256, 32, 32, 256)],
        *[(64, 33, 32, 62), (64, 64, 64, 16), (256, 128, 128, 16), (256, 256, 256, 4)],
        *[(64, 256, 256, 1), (64, 512, 512, 1), (1, 64, 64, 1), (7, 8, 8, 7)],
    ],
)
def test_large_images_are_taken_fewer_at_a_time(most, height, width, batch):
    assert ImageFormat(3, height, width).batch(most) == batch


WAYS = {  # what takes images one or two timesteps, and how many of 32x32 pixels at a time
    "sample": (lambda m, x, **o: m.sample(len(x), plan=Plan(1), **o), 1, 64),
    "bound": (lambda m, x, **o: m.bound(x, plan=Plan(1), **o), 1, 256),
    "measure": (lambda m, x, **o: m.measure(x, timesteps=2, **o), 2, 256),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [8, 64])
def test_a_model_takes_as_many_images_at_a_time_as_fit_unless_one_says(side, way):
    do, timesteps, usual = WAYS[way]
    model, images = model_of(side), images_of(side, 70)
    most = usual if side == 8 else usual // 4
    do(model, images)
    assert len(model.network.sizes) == timesteps * math.ceil(70 / most)
    model.network.sizes.clear()
    do(model, images, batch_size=70)
    assert len(model.network.sizes) == timesteps


@pytest.mark.parametrize("side", [8, 64])
def test_the_codec_takes_64_tiles_of_small_formats_and_fewer_of_large_ones(side):
    model = model_of(side)
    model.measure(images_of(side, 4), timesteps=2)
    model.learn_coding(images_of(side, 4), steps=1)
    codec = model.for_codec()
    walk = Walk(codec, codec.route(70, 2), [(side, side)] * 70, Counter(None, 140, ""))
    model.network.sizes.clear()
    walk.predict(walk.start, 1)
    assert model.network.sizes == ([64, 6] if side == 8 else [16, 16, 16, 16, 6])


class InOnePart(ImageFormat):
    """A format of which all images are taken at once."""

    def batch(self, most):
        return most


def test_the_error_of_large_images_is_added_up_in_parts_and_is_that_of_all():
    diffusion, images = tiny_model().diffusion, images_of(64, 18).images

    def measured(image_format):
        return measure_denoising_error(
            diffusion, lambda x, t: torch.sin(3 * x), images, image_format, timesteps=3
        )

    image_format = ImageFormat(1, 64, 64, 17)
    assert image_format.batch(18) == 4
    parts, whole = measured(image_format), measured(InOnePart(1, 64, 64, 17))
    assert np.allclose(parts.xstart_mse, whole.xstart_mse, rtol=1e-6)
    assert parts.decoder_bpd == pytest.approx(whole.decoder_bpd, rel=1e-9)


def test_a_number_of_timesteps_must_be_whole():
    with unchecked(), pytest.raises(DdpmError, match="whole number"):
        measured_timesteps(20, 5.5)
