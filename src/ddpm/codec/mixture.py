"""Integer frequencies of grey levels: a mixture of logistics for all channels of a pixel.

As in PixelCNN++ (Salimans et al. 2017) a component has one weight for the pixel, a mean and a scale
for each channel, and the mean of a channel depends linearly on the channels before it. When a
channel is known the weights become those that it leaves (Bayes). Grey levels, means and residuals
are on the byte scale (`ddpm.codec.snapping`); a grey level is the interval around it.

Of the real functions exp and the sigmoid nothing is left but tables of integers, so that the
frequencies of a symbol depend on nothing but integers: they rise strictly, every level has at least
one, and they sum to TOTAL, whatever the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ddpm.codec.range_coder import TOTAL, consume, highest, lowest
from ddpm.codec.snapping import UNIT
from ddpm.runtime.compiled import compiled

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

MEAN = 256  # means in a byte
LOG_SCALE = 64  # log-scales in a nat
LOGIT = 256  # logits in a nat
SLOPE_BITS = 12  # of the fraction of a slope
ARGUMENT = 1024  # arguments of the sigmoid in 1
SMALLEST, LARGEST = -3.5, 6.25  # log-scales in nats, of a byte
SCALES = round((LARGEST - SMALLEST) * LOG_SCALE) + 1
WEIGHT_BITS = 28  # 16 components times ONE still fit into 63
ONE_BITS = 30
ONE = 1 << ONE_BITS  # of the sigmoid
SHIFT = 20  # of the fraction of an inverse scale
MEAN_LIMIT = 1 << 17  # two bytes' range on either side
SLOPE_LIMIT = 8 << SLOPE_BITS
LOGIT_LIMIT = 1 << 20


@dataclass(frozen=True, eq=False)
class Tables:
    """What both sides look up.

    Args:
        sigmoid: of i / ARGUMENT, in units of 1 / ONE; beyond its end it is 1.
        exponential: of -i / LOGIT, in units of 2^-WEIGHT_BITS; beyond its end it is 0.
        inverse: of the scales from SMALLEST to LARGEST: steps of the sigmoid's argument in
            1 / MEAN of a byte, with SHIFT bits of fraction.
        edges: [levels - 1], borders between grey levels, in 1 / MEAN of a byte.
        values: [levels], the grey levels in 1 / UNIT of a byte.
    """

    sigmoid: Ints
    exponential: Ints
    inverse: Ints
    edges: Ints
    values: Ints

    @property
    def all(self) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """In the order in which compiled functions take them."""
        return self.sigmoid, self.exponential, self.inverse, self.edges, self.values


def real_tables() -> tuple[NDArray[np.float64], ...]:
    """`sigmoid`, `exponential` and `inverse` before they are rounded."""
    scales = np.arange(SCALES) / LOG_SCALE + SMALLEST
    return (
        ONE / (1 + np.exp(-np.arange(16 * ARGUMENT) / ARGUMENT)),
        np.exp(-np.arange(19 * LOGIT) / LOGIT) * 2**WEIGHT_BITS,
        np.exp(-scales) * (ARGUMENT / MEAN * 2**SHIFT),
    )


@cache
def tables(levels: int) -> Tables:
    """The tables for that many grey levels."""
    rounded = (np.rint(table).astype(np.int64) for table in real_tables())
    level, steps = np.arange(levels, dtype=np.int64), 2 * (levels - 1)
    edges = ((2 * level[:-1] + 1) * (255 * MEAN) * 2 + steps) // (2 * steps)
    sigmoid, exponential, inverse = rounded
    found = Tables(
        sigmoid, exponential, inverse, edges, (level * (255 * UNIT) * 4 + steps) // (2 * steps)
    )
    for array in vars(found).values():
        array.setflags(write=False)
    return found


def outputs(channels: int, components: int) -> int:
    """How many parameters a pixel has."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


@compiled
def _share(argument: int, sigmoid: Ints) -> int:
    """The sigmoid of an argument, 0..ONE; rises with it."""
    if argument >= len(sigmoid):
        return ONE
    if argument <= -len(sigmoid):
        return 0
    return sigmoid[argument] if argument >= 0 else ONE - sigmoid[-argument]


@compiled
def _below(level: int, k: int, means: Ints, inverse: Ints, edges: Ints, sigmoid: Ints) -> int:
    """The probability that component k gives levels below `level`, in 1 / ONE."""
    if level == 0:
        return 0
    if level > len(edges):
        return ONE
    distance = (edges[level - 1] - means[k]) * inverse[k]
    return _share((distance + (1 << (SHIFT - 1))) >> SHIFT, sigmoid)


@compiled
def cumulative(
    level: int, weights: Ints, means: Ints, inverse: Ints, edges: Ints, sigmoid: Ints
) -> int:
    """The sum of the frequencies of all levels below `level`."""
    share, total = 0, 0
    for k in range(len(weights)):
        share += weights[k] * _below(level, k, means, inverse, edges, sigmoid)
        total += weights[k]
    return level + ((TOTAL - len(edges) - 1) * (share // total) >> ONE_BITS)


@compiled
def _find(
    target: int, weights: Ints, means: Ints, inverse: Ints, edges: Ints, sigmoid: Ints
) -> int:
    """The level whose share `target` falls into."""
    low, high = 0, len(edges) + 1
    while high - low > 1:
        middle = (low + high) >> 1
        if cumulative(middle, weights, means, inverse, edges, sigmoid) <= target:
            low = middle
        else:
            high = middle
    return low


@compiled
def _begin(parameters: Ints, weights: Ints, exponential: Ints) -> None:
    """The weights of a pixel's components before any channel is known."""
    best = parameters[: len(weights)].max()
    for k in range(len(weights)):
        step = best - parameters[k]
        weights[k] = exponential[step] if step < len(exponential) else 0


@compiled
def _channel(
    parameters: Ints,
    c: int,
    channels: int,
    centre: Ints,
    known: Ints,
    means: Ints,
    inverse: Ints,
    scales: Ints,
) -> None:
    """Means and inverse scales of channel c, given the residuals of those before it."""
    count = len(means)
    for k in range(count):
        mean = parameters[count * (1 + c) + k]
        for before in range(c):
            slope = parameters[count * (1 + 2 * channels + c * (c - 1) // 2 + before) + k]
            mean += slope * (known[before] * (MEAN // UNIT)) >> SLOPE_BITS
        mean = min(max(mean, -MEAN_LIMIT), MEAN_LIMIT)
        means[k] = mean + centre[c] * (MEAN // UNIT)
        inverse[k] = scales[parameters[count * (1 + channels + c) + k]]


@compiled
def _learn(
    level: int, weights: Ints, means: Ints, inverse: Ints, edges: Ints, sigmoid: Ints
) -> None:
    """The weights once the channel's level is known; the largest keeps WEIGHT_BITS bits."""
    largest = 0
    for k in range(len(weights)):
        high = _below(level + 1, k, means, inverse, edges, sigmoid)
        weights[k] *= high - _below(level, k, means, inverse, edges, sigmoid) + 1
        largest = max(largest, weights[k])
    while largest >> WEIGHT_BITS:
        largest >>= 1
        for k in range(len(weights)):
            weights[k] >>= 1


@compiled
def shares(
    parameters: Ints,
    centres: Ints,
    levels: Ints,
    components: int,
    sigmoid: Ints,
    exponential: Ints,
    scales: Ints,
    edges: Ints,
    values: Ints,
    low: Ints,
    high: Ints,
) -> None:
    """What each pixel's levels take of TOTAL.

    Args:
        parameters: [n, outputs], as a `LastStage` computes them.
        centres: [n, channels], rounded x^_0 in 1 / UNIT of a byte.
        levels: [n, channels].
        components: of the mixture.
        sigmoid, exponential, scales, edges, values: of the `Tables`.
        low, high: [n, channels], filled in.
    """
    channels = levels.shape[1]
    weights, means = np.zeros(components, np.int64), np.zeros(components, np.int64)
    inverse, known = np.zeros(components, np.int64), np.zeros(channels, np.int64)
    for i in range(len(levels)):
        _begin(parameters[i], weights, exponential)
        for c in range(channels):
            _channel(parameters[i], c, channels, centres[i], known, means, inverse, scales)
            level = levels[i, c]
            low[i, c] = cumulative(level, weights, means, inverse, edges, sigmoid)
            high[i, c] = cumulative(level + 1, weights, means, inverse, edges, sigmoid)
            known[c] = values[level] - centres[i, c]
            _learn(level, weights, means, inverse, edges, sigmoid)


@compiled
def decode(
    parameters: Ints,
    centres: Ints,
    levels: Ints,
    components: int,
    sigmoid: Ints,
    exponential: Ints,
    scales: Ints,
    edges: Ints,
    values: Ints,
    state: Ints,
    code: Bytes,
    complete: bool,
) -> int:
    """Decode the levels of pixels.

    Args:
        parameters, centres, components, sigmoid, exponential, scales, edges, values: see `shares`.
        levels: [n, channels], filled in as far as they are known.
        state, code, complete: of the range decoder.

    Returns:
        How many levels are known; fewer than all where the code ends.
    """
    channels = levels.shape[1]
    weights, means = np.zeros(components, np.int64), np.zeros(components, np.int64)
    inverse, known = np.zeros(components, np.int64), np.zeros(channels, np.int64)
    for i in range(len(levels)):
        _begin(parameters[i], weights, exponential)
        for c in range(channels):
            _channel(parameters[i], c, channels, centres[i], known, means, inverse, scales)
            level = _find(lowest(state), weights, means, inverse, edges, sigmoid)
            low = cumulative(level, weights, means, inverse, edges, sigmoid)
            high = cumulative(level + 1, weights, means, inverse, edges, sigmoid)
            if highest(state) >= high:
                return i * channels + c
            consume(state, low, high, code, complete)
            levels[i, c] = level
            known[c] = values[level] - centres[i, c]
            _learn(level, weights, means, inverse, edges, sigmoid)
    return len(levels) * channels
