"""A network that knows classes as a denoiser of images of one class, with or without guidance.

Classifier-free guidance (Ho & Salimans 2022): from the network's output c with the class and u with
the null class it makes

    u + s (c - u)

with the guidance s. s = 1 is the class alone and s = 0 no class at all: there the network is called
once and nothing is added, so that both are what they are called to the last bit. In the other
convention, (1 + w) c - w u, the same is w = s - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser
from ddpm.runtime.device import in_precision

Conditional = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, [b, c, h, w]; timesteps, [b]; labels 0..classes, [b]) -> [b, c or 2c, h, w]."""


def with_labels(
    network: Conditional, labels: Tensor, precision: Literal["fp32", "bf16"]
) -> Denoiser:
    """A denoiser of images whose classes are known.

    Args:
        network: a module, or any function like it.
        labels: of the images, long, [b]; as many as there are classes for the null class.
        precision: in which the network computes; float32 comes out.
    """
    return in_precision(lambda x, t: network(x, t, labels), precision)


def guided(
    network: Conditional,
    label: int,
    null: int,
    guidance: float,
    precision: Literal["fp32", "bf16"],
) -> Denoiser:
    """A denoiser of images of one class.

    With a guidance other than 0 and 1 the network sees every image twice in one call. What is mixed
    is the prediction; a learned variance is that of the class. Any prediction type is a function
    a x_t + b eps of the noise eps, and the weights s and 1 - s add up to 1, so that guidance means
    the same for all of them.

    Args:
        network: a module, or any function like it.
        label: of the class.
        null: the label of the null class.
        guidance: s, at least 0.
        precision: in which the network computes; float32 comes out.
    """

    def call(x: Tensor, t: Tensor) -> Tensor:
        conditional = torch.full_like(t, label)
        if guidance == 1:
            return with_labels(network, conditional, precision)(x, t)
        unconditional = torch.full_like(t, null)
        if guidance == 0:
            return with_labels(network, unconditional, precision)(x, t)
        both = with_labels(network, torch.cat([conditional, unconditional]), precision)
        c, u = both(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        channels = x.shape[1]
        mixed = u[:, :channels] + guidance * (c[:, :channels] - u[:, :channels])
        return torch.cat([mixed, c[:, channels:]], dim=1)

    return call
