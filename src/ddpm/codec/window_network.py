"""The last stage's network in floats, as it is trained, and its integers once it is.

It is the network of `ddpm.codec.integer_network` with real numbers: a real 1 is 16 bytes of a
feature or a mean, and a nat of a log-scale or a logit. The likelihood is that of PixelCNN++
(Salimans et al. 2017): a mixture of logistics, each the probability of the interval around a grey
level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm.codec.integer_network import (
    EXACT,
    FIRST_BITS,
    FRACTION,
    MAX_BITS,
    IntegerNetwork,
    Layer,
)
from ddpm.codec.mixture import LARGEST, SMALLEST, outputs
from ddpm.codec.snapping import UNIT
from ddpm.codec.windows import ONE, features

BYTES = ONE / UNIT  # in a real 1
USUAL_SCALE = 1.2  # log-scale of a component before anything is learned, in bytes


class WindowNetwork(nn.Module):
    """From the features of a pixel to a mixture for its channels.

    Args:
        channels: of an image.
        knots: rising timesteps, between which the features of a timestep interpolate.
        components: of the mixture.
        width: of a hidden layer.
        depth: hidden layers.
    """

    def __init__(
        self, channels: int, knots: Iterable[int], components: int, width: int, depth: int
    ) -> None:
        super().__init__()
        self.channels, self.components = channels, components
        self.knots = np.array(list(knots), dtype=np.int64)
        inputs = features(channels, len(self.knots))
        self.skip = nn.Linear(inputs, channels, bias=False)
        self.first = nn.Linear(inputs, width, bias=False)  # the timestep's features sum to 1
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, outputs(channels, components))
        with torch.no_grad():
            self.skip.weight.zero_()
            self.last.weight.mul_(0.3)
            _, means, scales, slopes = self.parts(self.last.bias[None])
            means.uniform_(-0.3, 0.3)
            scales.copy_(USUAL_SCALE + torch.linspace(-1.5, 1.5, components))
            slopes.zero_()

    @property
    def matrices(self) -> list[Tensor]:
        """The weights of the hidden layers."""
        return [
            layer.weight for layer in (self.first, *self.hidden) if isinstance(layer, nn.Linear)
        ]

    def forward(self, x: Float[Tensor, "b inputs"]) -> Float[Tensor, "b outputs"]:
        """The parameters of the mixture; `parts` names them."""
        # None comes near the integers' CEILING, and relu's gradient is quicker than clamp's.
        h = self.first(x).relu()
        for layer in self.hidden:
            h = layer(h).relu()
        found = self.last(h)
        k, c = self.components, self.channels
        skipped = self.skip(x).repeat_interleave(k, dim=1)
        return found + F.pad(skipped, (k, found.shape[1] - k - k * c))

    def parts(self, found: Float[Tensor, "b outputs"]) -> tuple[Tensor, ...]:
        """Logits [b, k], means and log-scales [b, c, k], slopes [b, c (c - 1) / 2, k]: views."""
        k, c = self.components, self.channels
        logits, means, scales, slopes = found.split([k, k * c, k * c, k * c * (c - 1) // 2], dim=1)
        return (
            logits,
            means.unflatten(1, (c, k)),
            scales.unflatten(1, (c, k)),
            slopes.unflatten(1, (c * (c - 1) // 2, k)),
        )

    def nats(
        self,
        found: Float[Tensor, "b outputs"],
        levels: Int[Tensor, "b c"],
        centres: Float[Tensor, "b c"],
        grey_levels: int,
    ) -> Float[Tensor, " b"]:
        """What each pixel costs: -log of the probability of all its channels.

        Args:
            found: of `forward`.
            levels: the grey levels.
            centres: x^_0 that the residuals are counted from, in bytes.
            grey_levels: of the images.
        """
        logits, means, scales, slopes = self.parts(found)
        width = 255 / (grey_levels - 1)
        residual = levels * width - centres
        shifts, row = [], 0
        for c in range(self.channels):
            shifts.append((slopes[:, row : row + c] * residual[:, :c, None]).sum(1))
            row += c
        means = BYTES * means + torch.stack(shifts, dim=1)
        inverse = torch.exp(-scales.clamp(SMALLEST, LARGEST))
        high = (residual[:, :, None] + width / 2 - means) * inverse
        # s(high) - s(low) = s(high) s(-low) (1 - exp(low - high)), and high - low is known.
        span = width * inverse
        top, bottom = levels == grey_levels - 1, levels == 0
        zero = torch.zeros((), dtype=found.dtype)
        log = torch.where(top[:, :, None], zero, F.logsigmoid(high))
        log = log + torch.where(bottom[:, :, None], zero, F.logsigmoid(span - high))
        inside = torch.log(-torch.expm1(-span))
        log = log + torch.where((top | bottom)[:, :, None], zero, inside)
        return -torch.logsumexp(torch.log_softmax(logits, dim=1) + log.sum(1), dim=1)

    @torch.no_grad()
    def frozen(self) -> IntegerNetwork:
        """The same in integers.

        Raises:
            DdpmError: weights so large that the integers would not be exact.
        """
        zero = torch.zeros(self.first.out_features), torch.zeros(self.channels)
        layers = [integers(self.first.weight, zero[0], FIRST_BITS)]
        for layer in (*self.hidden, self.last):
            assert isinstance(layer, nn.Linear)
            layers.append(integers(layer.weight, layer.bias, FRACTION))
        skip = integers(self.skip.weight, zero[1], FIRST_BITS)
        return IntegerNetwork(self.channels, self.components, self.knots, skip, tuple(layers))


def integers(weight: Tensor, bias: Tensor, before: int) -> Layer:
    """A layer in integers, the weights with as many bits as int16 has room for.

    Args:
        weight: [outputs, inputs].
        bias: [outputs].
        before: bits of the fraction of the inputs.
    """
    largest = float(weight.abs().max())
    bits = MAX_BITS if largest == 0 else math.floor(math.log2(32767 / largest))
    bits = max(0, min(bits, MAX_BITS))
    rounded = (weight.double() * 2.0**bits).round().clamp(-32767, 32767)
    limit = float(EXACT >> 1)
    # The half is for the floor after the sum, where it rounds.
    shifted = (bias.double() * 2.0 ** (bits + before)).round().clamp(-limit, limit)
    return Layer(rounded.T.contiguous().to(torch.int16), shifted.long(), bits)
