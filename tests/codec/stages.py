"""Last stages of random integers, and images with an x^_0 that is near them."""

import numpy as np
import torch

from ddpm.codec.integer_network import FIRST_BITS, FRACTION, IntegerNetwork, Layer
from ddpm.codec.last_stage import LastStage
from ddpm.codec.mixture import outputs
from ddpm.codec.snapping import Grid
from ddpm.codec.windows import features

KNOTS = np.array([2, 5, 9])


def random_layer(random, inputs, outs, size, before, bits=12):
    """Weights of about `size`, biases of about 1."""
    weight = (random.normal(0, size, (inputs, outs)) * 2**bits).round().clip(-32767, 32767)
    bias = (random.normal(0, 1, outs) * 2 ** (bits + before)).round()
    parts = torch.from_numpy(weight.astype(np.int16)), torch.from_numpy(bias.astype(np.int64))
    return Layer(*parts, bits)


def random_stage(channels=3, levels=256, components=4, width=12, depth=2, size=0.3, seed=0):
    """A stage that has learned nothing, every weight of which matters.

    NumPy draws it, whose numbers are the same whatever instructions there are.
    """
    random = np.random.default_rng(seed)
    inputs = features(channels, len(KNOTS))
    outs = outputs(channels, components)
    skip = random_layer(random, inputs, channels, size / 30, FIRST_BITS)
    layers = [random_layer(random, inputs, width, size / 3, FIRST_BITS)]
    layers += [random_layer(random, width, width, size, FRACTION) for _ in range(depth - 1)]
    layers.append(random_layer(random, width, outs, size / 3, FRACTION))
    network = IntegerNetwork(channels, components, KNOTS, skip, tuple(layers))
    return LastStage(levels, Grid(), network)


def random_case(sizes, channels=3, levels=256, error=5.0, seed=0):
    """(images, x^_0): smooth images with noise, and an x^_0 off by `error` bytes."""
    random = np.random.default_rng([seed, 1])
    images, xstart = [], []
    for height, width in sizes:
        y, x = np.arange(height)[:, None], np.arange(width)
        wave = np.sin(0.3 * y + 0.2 * x + np.arange(channels)[:, None, None])
        grey = 127.5 + 100 * wave + random.normal(0, 8, (channels, height, width))
        level = np.rint(grey.clip(0, 255) * (levels - 1) / 255)
        images.append(torch.from_numpy(level.astype(np.uint8)))
        near = level * 255 / (levels - 1) + random.normal(0, error, level.shape)
        xstart.append(torch.from_numpy(near / 127.5 - 1).float())
    return images, xstart


def sizes_of(images):
    """Height and width of each."""
    return [tuple(image.shape[1:]) for image in images]
