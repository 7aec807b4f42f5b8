"""A small network in integers, which computes the same everywhere.

Weights and activations are integers carried in float64. Products and sums of float64 are exact as
long as none reaches 2^53, in any order, on any number of threads, fused or not; that they cannot
reach it is proved from the weights when the network is put together. Between layers the sums are
multiplied by a power of two, floored and clamped, which is exact as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import ddpm.codec.mixture as mixture
from ddpm.codec.windows import (
    LIMIT,
    ONE,
    PAST,
    Planes,
    features,
    gather_known,
    gather_past,
    timestep_features,
)
from ddpm.errors import check

Ints = NDArray[np.int64]

FRACTION = 12  # bits of the fraction of a hidden activation
CEILING = 256  # to which a hidden activation, which is at least 0, is clamped
EXACT = 1 << 53
MAX_BITS = 24  # of a weight's fraction
FIRST_BITS = ONE.bit_length() - 1  # of the features' fraction
MEAN_BITS = 12  # a mean of 1 is 16 bytes of mixture.MEAN


@dataclass(frozen=True, eq=False)
class Layer:
    """y = x W + b in integers.

    Args:
        weight: int16 [inputs, outputs].
        bias: int64 [outputs].
        bits: of the fraction of the weights, 0..MAX_BITS.
    """

    weight: Tensor
    bias: Tensor
    bits: int

    @cached_property
    def real(self) -> tuple[Tensor, Tensor]:
        """The same numbers in float64."""
        return self.weight.double(), self.bias.double()

    def fits(self, inputs: int, outputs: int) -> bool:
        """Whether it has that many inputs and outputs, and the right types."""
        return (
            self.weight.dtype == torch.int16
            and self.weight.shape == (inputs, outputs)
            and self.bias.dtype == torch.int64
            and self.bias.shape == (outputs,)
            and 0 <= self.bits <= MAX_BITS
        )

    def is_exact(self, bound: int) -> bool:
        """Whether no sum of products can reach 2^53 in any order, from inputs of up to `bound`."""
        if not ((self.bias > -EXACT) & (self.bias < EXACT)).all():  # whose sum might wrap around
            return False
        return int((self.weight.long().abs().sum(0) * bound + self.bias.abs()).max()) < EXACT


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """From the neighbourhood of a pixel to the parameters of its mixture.

    Args:
        channels: of an image, 1..4.
        components: of the mixture, 1..16.
        knots: rising timesteps of the whole chain; between them the network interpolates.
        skip: from the features to a part of the mean of each channel.
        layers: from the features to the parameters, two or more.

    Raises:
        DdpmError: parts that do not fit together, or sums that float64 might round.
    """

    channels: int
    components: int
    knots: Ints
    skip: Layer
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        check(
            1 <= self.channels <= 4
            and 1 <= self.components <= 16
            and 1 <= len(self.knots) <= 64
            and bool((np.diff(self.knots) > 0).all())
            and len(self.layers) >= 2,
            "a last stage needs 1..4 channels, 1..16 components, 1..64 rising timesteps and two "
            "layers or more",
        )
        inputs = features(self.channels, len(self.knots))
        ends = [len(layer.bias) for layer in self.layers[:-1]]
        widths = [inputs, *ends, mixture.outputs(self.channels, self.components)]
        check(
            self.skip.fits(inputs, self.channels)
            and all(
                layer.fits(*pair)
                for layer, *pair in zip(self.layers, widths[:-1], widths[1:], strict=True)
            ),
            "the layers of this last stage do not fit together",
        )
        hidden = CEILING << FRACTION
        check(
            self.skip.is_exact(LIMIT)
            and self.layers[0].is_exact(LIMIT)
            and all(layer.is_exact(hidden) for layer in self.layers[1:]),
            "the weights of this last stage are so large that float64 would round their sums",
        )

    def begin(
        self, planes: Planes, corners: Ints, strides: Ints, timestep: int
    ) -> tuple[Tensor, Tensor]:
        """What x^_0 and the timestep add to the first layer, and to the skip.

        Args:
            planes: [places, channels], rounded x^_0 (`Layout.padded`).
            corners, strides: [n], of the pixels' windows.
            timestep: of the whole chain.

        Returns:
            float64 [n, width] and [n, channels], integers.
        """
        known = features(self.channels, len(self.knots)) - PAST * self.channels
        found = np.empty((len(corners), known))
        gather_known(planes, corners, strides, timestep_features(timestep, self.knots), found)
        (weight, bias), (skip, skip_bias) = self.layers[0].real, self.skip.real
        given = torch.from_numpy(found)
        return torch.addmm(bias, given, weight[:known]), torch.addmm(skip_bias, given, skip[:known])

    def finish(
        self, begun: tuple[Tensor, Tensor], residuals: Planes, corners: Ints, strides: Ints
    ) -> Ints:
        """The parameters of pixels whose pasts are known.

        Args:
            begun: of `begin`, for these pixels.
            residuals: [places, channels], in 1 / UNIT of a byte (`Layout.padded`), 0 where there
                are no pixels.
            corners, strides: [n], of the pixels' windows.

        Returns:
            [n, outputs], in the units of `ddpm.codec.mixture`.
        """
        (sums, means), count = begun, PAST * self.channels
        found = np.empty((len(corners), count))
        gather_past(residuals, corners, strides, found)
        past = torch.from_numpy(found)
        x = torch.addmm(sums, past, self.layers[0].real[0][-count:])
        before = FIRST_BITS
        for layer, after in zip(self.layers, self.layers[1:], strict=False):
            x.mul_(2.0 ** (FRACTION - before - layer.bits)).floor_()
            x.clamp_(0, CEILING << FRACTION)
            x = torch.addmm(after.real[1], x, after.real[0])
            before = FRACTION
        means = torch.addmm(means, past, self.skip.real[0][-count:])
        return self._units(x, means)

    def _units(self, x: Tensor, skipped: Tensor) -> Ints:
        """Sums of the last layer and of the skip in the mixture's units, within their limits."""
        k, c, bits = self.components, self.channels, self.layers[-1].bits + FRACTION
        counts = k, c * k, c * k, x.shape[1] - (1 + 2 * c) * k
        logits, means, scales, slopes = (x * 2.0**-bits).split(counts, dim=1)
        logits = _whole(logits, mixture.LOGIT, mixture.LOGIT_LIMIT)
        means = _whole(means, 2.0**MEAN_BITS, mixture.MEAN_LIMIT)
        skipped = _whole(
            skipped, 2.0 ** (MEAN_BITS - FIRST_BITS - self.skip.bits), mixture.MEAN_LIMIT
        )
        means = (means.view(-1, c, k) + skipped[:, :, None]).flatten(1)
        offset = round(mixture.SMALLEST * mixture.LOG_SCALE)
        scales = (scales * mixture.LOG_SCALE).floor_() - offset
        scales = scales.clamp_(0, mixture.SCALES - 1)
        slopes = _whole(slopes, 2.0**mixture.SLOPE_BITS, mixture.SLOPE_LIMIT)
        return torch.cat([logits, means, scales, slopes], dim=1).long().numpy()


def _whole(x: Tensor, unit: float, limit: int) -> Tensor:
    """x in units of which one has `unit`, rounded down, within a limit."""
    return (x * unit).floor_().clamp_(-limit, limit)
