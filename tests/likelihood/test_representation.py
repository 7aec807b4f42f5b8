"""`Ddpm.features`: the layer by hand, noise by image, two networks, mistakes in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.likelihood.representation import content_numbers
from ddpm.model import Ddpm
from ddpm.networks.activations import layer_names, watched
from ddpm.networks.experts import Experts
from ddpm.runtime.randomness import Randomness
from helpers import tiny_config, tiny_images, tiny_model

ROUNDING = 2e-5  # of float32, in sums that a batch of another size adds up in another order


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def images():
    return tiny_images(12).images


def x_t(model, images, t, seed=0):
    """Eq. 4 with abar as the product of 1 - beta, and the noise of each image."""
    abar = float(np.prod(1 - model.diffusion.schedule.betas[:t]))
    noise = Randomness(seed, "features").normal(content_numbers(images), model.format.shape)
    return abar**0.5 * (images.float() / 8 - 1) + (1 - abar) ** 0.5 * noise


def test_the_middle_of_the_network_is_what_it_is_by_hand(model, images):
    network, t = model.network, 7
    x = x_t(model, images, t, seed=3)
    temb = network.embedding(torch.full((len(x),), t - 1), None)
    h = network.down[0][0](network.conv_in(x), temb)
    h = network.middle2(network.middle_attention(network.middle1(h, temb)), temb)
    found = model.features(images, t, "middle2", seed=3)
    assert found.dtype == torch.float32
    assert found.shape == (12, 8)
    assert torch.allclose(found, h.mean((2, 3)), atol=ROUNDING, rtol=ROUNDING)


def test_features_depend_on_the_image_and_not_on_the_batch(model, images):
    found = model.features(images, 5, "up.0.1")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for other in (
        model.features(images, 5, "up.0.1", batch_size=5),
        model.features(images[order], 5, "up.0.1")[order.argsort()],
        torch.cat([model.features(image[None], 5, "up.0.1") for image in images]),
        model.features(list(images), 5, "up.0.1"),
    ):
        assert torch.allclose(other, found, atol=ROUNDING, rtol=ROUNDING)
    assert not torch.allclose(model.features(images, 5, "up.0.1", seed=1), found, atol=0.1)


def test_the_noise_of_images_that_differ_in_a_pixel_has_nothing_in_common():
    image = tiny_images(1).images
    other = image.clone()
    other[0, 0, 3, 3] ^= 1
    numbers = content_numbers(torch.cat([image, image, other]))
    assert numbers[0] == numbers[1] != numbers[2]
    first, second = Randomness(0, "features").normal(numbers[1:], (10_000,))
    assert abs(float((first * second).mean())) < 4 / 10_000**0.5  # the mean of products: 1 / sqrt n


def test_of_two_networks_a_name_stands_for_the_one_that_computes(images):
    config = tiny_config()
    config = replace(config, network=replace(config.network, switch=9))
    torch.manual_seed(0)
    network = config.build_network((1, 8, 8)).requires_grad_(False)
    assert isinstance(network, Experts)
    both = Ddpm(config, ImageFormat(1, 8, 8, 17), network)
    assert layer_names(network) == layer_names(network.below)
    for t, part in ((9, network.below), (10, network.above)):  # times 8 and 9 of 0..19
        alone = Ddpm(tiny_config(), both.format, part)
        found = both.features(images, t, "middle1")
        assert torch.equal(found, alone.features(images, t, "middle1"))
    assert torch.equal(both.features(images, 10, "above.middle1"), found)
    with pytest.raises(DdpmError, match=r"'below.middle1' takes no part at t = 10"):
        both.features(images, 10, "below.middle1")


def test_all_layers_that_are_listed_have_features_and_parts_of_them_too(model, images):
    names = layer_names(model.network)
    assert names == [
        *("conv_in", "down.0.0", "middle1", "middle_attention", "middle2", "up.0.0", "up.0.1"),
        *("norm_out", "conv_out"),
    ]
    for name in [*names, "down.0.0.res"]:
        found = model.features(images[:2], 3, name)
        assert found.shape == (2, 1 if name == "conv_out" else 8), name
    # The output itself is the layer conv_out.
    x = x_t(model, images[:2], 3)
    output = model.denoiser()(x, torch.full((2,), 2))
    last = model.features(images[:2], 3, "conv_out")
    assert torch.allclose(last, output.mean((2, 3)), atol=ROUNDING)


def test_layers_of_somebodys_own_network_are_found():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Sequential(nn.Conv2d(4, 1, 3)))
    assert layer_names(network) == ["0", "1", "2.0"]
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with watched(network, ["0"]) as seen:
        network(x)
    assert torch.equal(seen["0"], network[0](x))
    seen.clear()
    network(x)
    assert seen == {}  # nobody watches any more


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "middle3"}, "no layer 'middle3'; its layers are conv_in, down.0.0, middle1"),
        ({"layer": ""}, "no layer ''"),
        ({"layer": "time1"}, "'time1' does not return one image of channels for each image"),
        ({"t": 0}, "t must be at least 1"),
        ({"t": 21}, "must lie in 1..20, got 21"),
        ({"seed": -1}, "the seed"),
        ({"batch_size": 0}, "batch_size"),
        ({"images": torch.zeros(2, 1, 9, 8, dtype=torch.uint8)}, r"shape \(1, 8, 8\)"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, r"shape \(1, 8, 8\)"),
        ({"images": torch.zeros(2, 1, 8, 8)}, "uint8"),
        ({"images": torch.full((2, 1, 8, 8), 17, dtype=torch.uint8)}, "grey levels 0..16"),
        ({"images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8)}, "no images"),
    ],
)
def test_mistakes_are_one_sentence(model, images, options, words):
    given = {"images": images, "t": 3, "layer": "middle1", **options}
    with pytest.raises(DdpmError, match=words) as caught:
        model.features(**given)
    assert "\n" not in str(caught.value)


def test_guidance_is_refused_since_the_network_then_sees_every_image_twice(images):
    config = tiny_config()
    config = replace(config, network=replace(config.network, classes=3))
    network = config.build_network((1, 8, 8)).requires_grad_(False)
    model = Ddpm(config, ImageFormat(1, 8, 8, 17), network)
    null, one = (model.given(label).features(images, 3, "middle1") for label in (None, 1))
    assert not torch.allclose(null, one)
    with pytest.raises(DdpmError, match="guidance"):
        model.given(1, 2.0).features(images, 3, "middle1")
