"""Training of the exact last stage: it finds what there is to find, and can be stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stages import random_case

from ddpm.codec import muon
from ddpm.codec.fit_last_stage import Fit, Recipe, fit_last_stage, usual_recipe
from ddpm.codec.last_stage import LastStage
from ddpm.codec.mixture import tables
from ddpm.codec.snapping import MARGIN, UNIT, Grid
from ddpm.codec.window_network import WindowNetwork
from ddpm.codec.window_pool import BATCH, Pool
from ddpm.codec.windows import AREA, ONE, PAST, features
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.training import muon as training_muon

TINY = Recipe(width=16, depth=2, components=2, windows=256, warmup=20, pool=BATCH, renew=10)
SHAPE = (1, 8, 8)


def noisy(n, sigma=6.0, channels=1, seed=0):
    """(images, x^_0, of the same bytes): smooth images plus logistic noise around x^_0."""
    random = np.random.default_rng(seed)
    shape = (n, channels, 8, 8)
    xstart = random.uniform(60, 190, (n, 1, 1, 1)) + random.uniform(-4, 4, shape)
    noise = random.logistic(0, sigma, shape)
    images = np.rint((xstart + noise).clip(0, 255)).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(xstart / 127.5 - 1).float()


class Predictor:
    """x^_0 that was made with the images, whichever of them are asked for."""

    def __init__(self, images, xstart):
        self.found = {image.numpy().tobytes(): x for image, x in zip(images, xstart, strict=True)}

    def __call__(self, images, timestep, number):
        return torch.stack([self.found[image.numpy().tobytes()] for image in images])


def fitted(images, xstart, **options):
    """A stage for them."""
    image_format = ImageFormat(*images.shape[1:], 256)
    settings = {"recipe": TINY, "steps": 20, **options}
    return fit_last_stage(images, image_format, Predictor(images, xstart), (5, 20), **settings)


def test_it_finds_the_entropy_of_noise():
    sigma = 6.0
    images, xstart = noisy(256, sigma)
    recipe = replace(TINY, pool=4 * BATCH, grid=Grid(1), windows=512, lr=5e-3)
    stage = fitted(images, xstart, recipe=recipe, steps=400)
    new, near = noisy(64, sigma, seed=1)
    found = stage.bits(list(new), list(near), 10).sum() / new.numel()
    offsets = stage.shares(list(new), list(near), 10, MARGIN)[3] / new.numel()
    entropy = (np.log(sigma) + 2) / np.log(2)  # of a logistic distribution
    assert entropy - 0.03 < found - offsets < entropy + 0.06


def test_it_learns_from_the_neighbours_and_the_channels_before():
    images, xstart = noisy(128, channels=1)
    images = images.repeat(1, 3, 1, 1)  # green and blue are red
    xstart = xstart.repeat(1, 3, 1, 1)
    image_format = ImageFormat(3, 8, 8, 256)
    predict = Predictor(images, xstart)
    recipe = replace(TINY, pool=2 * BATCH, windows=512, lr=5e-3, components=3, grid=Grid(1))
    stage = fit_last_stage(images, image_format, predict, (5, 20), steps=500, recipe=recipe)
    low, high, _, _ = stage.shares(list(images), list(xstart), 10, MARGIN)
    red, green, blue = (24 - np.log2(high - low)).mean(axis=0)
    assert red > 4.5
    assert green < 2
    assert blue < 2


def test_the_same_seed_gives_the_same_integers_and_another_seed_others():
    images, xstart = noisy(64)
    digests = [fitted(images, xstart, seed=seed).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_stopped_training_goes_on_to_the_same_integers(tmp_path, monkeypatch):
    images, xstart = noisy(150)
    recipe = replace(TINY, pool=2 * BATCH, renew=4)
    whole = fitted(images, xstart, recipe=recipe)
    path = tmp_path / "fit.safetensors"
    monkeypatch.setattr("ddpm.codec.fit_last_stage.SAVE_EVERY", -1)
    steps, advance = [], Fit.advance

    def stopping(self, done):
        steps.append(self.step)
        if steps.count(13) == 1 and self.step == 13:
            raise KeyboardInterrupt
        advance(self, done)

    monkeypatch.setattr(Fit, "advance", stopping)
    with pytest.raises(KeyboardInterrupt):
        fitted(images, xstart, recipe=recipe, checkpoint=path)
    again = fitted(images, xstart, recipe=recipe, checkpoint=path)
    assert steps == [*range(14), *range(13, 20)]
    assert again.digest() == whole.digest()
    assert fitted(images, xstart, recipe=recipe, checkpoint=path).digest() == whole.digest()
    with pytest.raises(DdpmError, match="another training"):
        fitted(images, xstart, recipe=recipe, checkpoint=path, seed=1)


def test_a_training_may_begin_with_the_weights_of_another(tmp_path):
    images, xstart = noisy(128)
    path = tmp_path / "fit.safetensors"
    recipe = replace(TINY, pool=2 * BATCH, lr=5e-3, windows=512)
    first = fitted(images, xstart, recipe=recipe, steps=300, checkpoint=path)
    options = {"recipe": replace(recipe, lr=1e-6), "steps": 1}
    cold, warm = (
        fitted(images, xstart, **options),
        fitted(images, xstart, begin_from=path, **options),
    )
    bits = [stage.bits(list(images), list(xstart), 9).sum() for stage in (first, cold, warm)]
    assert abs(bits[2] / bits[0] - 1) < 0.002
    assert bits[1] > 1.02 * bits[0]
    with pytest.raises(DdpmError, match="shape"):
        fitted(images, xstart, recipe=replace(recipe, width=8), steps=1, begin_from=path)


def test_it_stops_in_time():
    images, xstart = noisy(64)
    seen = []
    fitted(images, xstart, steps=None, seconds=1.5, progress=lambda *args: seen.append(args[:2]))
    assert seen[-1][1] == 2
    for wrong in ({"steps": 1, "seconds": 1.0}, {"steps": None}):
        with pytest.raises(DdpmError, match="either"):
            fitted(images, xstart, **wrong)


@pytest.mark.parametrize(("channels", "levels"), [(1, 17), (3, 256), (2, 2), (4, 256)])
def test_integers_cost_what_the_floats_cost(channels, levels):
    image_format = ImageFormat(channels, 8, 8, levels)
    images, xstart = map(torch.stack, random_case([(8, 8)] * BATCH, channels, levels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = WindowNetwork(channels, (5, 20), 5, 32, 3)
        with torch.no_grad():
            network.skip.weight.normal_(0, 0.02)
            network.last.weight.mul_(6)
            network.parts(network.last.bias[None])[3].normal_(0, 0.5)
    pool = Pool(image_format, Grid(), network.knots, BATCH)
    pool.put(0, images, xstart, 10, seed=3)
    tries = np.random.default_rng([3, 0]).integers(0, 64, Grid().blocks(images.numel()))
    x, pixels, centres = pool.draw(64 * BATCH, Every(np.random.PCG64(0)))
    nats = network.nats(network(x), pixels, centres, levels)
    frozen = network.frozen()
    stage_bits = exact_bits(frozen, pool, tries, levels, images, xstart)
    # Of 17 levels a pixel costs 0.92 bits here, 0.0027 of them by the rounding of the network.
    limit = 0.003 if levels == 17 else 0.002
    assert abs(float(nats.detach().mean()) / np.log(2) - stage_bits) < limit * channels


class Every(np.random.Generator):
    """Draws every pixel of a pool of 8x8 images once."""

    asked = 0

    def integers(self, low, high, count):
        self.asked += 1
        return np.arange(count) // 64 if self.asked == 1 else np.arange(count) % 64


def exact_bits(network, pool, tries, levels, images, xstart):
    """Bits of a pixel, of all images, by the integers at given offsets."""
    stage = LastStage(levels, pool.grid, network)

    class Given(Grid):
        def choose(self, values, margin=MARGIN):
            return tries, np.zeros(len(tries))

    given = replace(stage, grid=Given())
    low, high, _, _ = given.shares(list(images), list(xstart), 10, MARGIN)
    return (24 - np.log2(high - low)).sum() / len(low)


def test_the_likelihood_is_one():
    network = WindowNetwork(2, (5, 20), 3, 8, 2)
    with torch.no_grad():
        network.last.weight.mul_(5)
        network.parts(network.last.bias[None])[3].normal_(0, 0.5)
    x = torch.randn(1, features(2, 2))
    found = network(x).double()
    for levels in (2, 17):
        every = torch.cartesian_prod(torch.arange(levels), torch.arange(levels))
        centres = torch.tensor([[100.3, 51.8]]).expand(len(every), -1)
        nats = network.nats(found.expand(len(every), -1), every, centres, levels)
        assert float((-nats).exp().sum().detach()) == pytest.approx(1, abs=1e-6)


def test_windows_in_training_are_those_of_the_code():
    image_format = ImageFormat(2, 5, 4, 17)
    images, xstart = map(torch.stack, random_case([(5, 4)] * BATCH, 2, 17))
    pool = Pool(image_format, Grid(4, 256), np.array([5, 20]), BATCH)
    pool.put(0, images, xstart, 5, seed=0)
    x, _, centres = pool.draw(500, np.random.default_rng(0))
    middle = AREA // 2 * 2
    assert torch.allclose(x[:, middle : middle + 2] * 16 + 127.5, centres, atol=0.51)
    mask = x[:, 2 * AREA : 3 * AREA]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert bool((mask[:, AREA // 2] == 1).all())
    assert torch.equal(x[:, 3 * AREA : 3 * AREA + 2], torch.tensor([[1.0, 0.0]]).expand(500, 2))
    residual = x[:, -2 * PAST :] * ONE / UNIT
    outside = mask[:, :PAST].repeat_interleave(2, dim=1) == 0
    assert bool((residual[outside] == 0).all())
    # The pixel to the left: its level is its x^_0 plus its residual.
    left = x[:, middle - 2 : middle] * 16 + centres + residual[:, -2:]
    there = mask[:, AREA // 2 - 1] == 1
    values = torch.tensor(tables(17).values) / UNIT
    distance = (left[there][:, :, None] - values).abs().amin(2)
    assert float(distance.max()) < 1e-3


@pytest.mark.parametrize("shape", [(5, 5), (16, 30), (30, 7)])
def test_muon_takes_the_same_steps_as_the_training_of_the_large_networks(shape):
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=random)
    ours, theirs = (torch.nn.Parameter(weight.clone()) for _ in range(2))
    small, large = muon.Muon([ours], torch.float32), training_muon.Muon([theirs], 0.01)
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=random)
        theirs.grad = ours.grad.clone()
        small.step(0.01)
        large.step()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, weight, atol=1e-3)
    singular = torch.linalg.svdvals(muon.orthogonalised(ours.grad))
    assert float(singular.min()) > 0.3
    assert float(singular.max()) < 1.3
    coarse = muon.orthogonalised(ours.grad, torch.bfloat16)
    assert torch.allclose(coarse, muon.orthogonalised(ours.grad), atol=0.05)


def test_recipes_by_format():
    assert usual_recipe(ImageFormat(1, 8, 8, 17)).width < usual_recipe(ImageFormat(3, 32, 32)).width
