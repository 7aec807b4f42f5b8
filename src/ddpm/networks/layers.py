"""The layers of the U-Net: convolutions, res-blocks, attention, time embedding."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm.errors import check

Variant = Literal["paper", "openai"]
"""Constants that no weights tell: the paper's; or those of improved-diffusion, which are also the
defaults of diffusers."""
EPS = {"paper": 1e-6, "openai": 1e-5}  # of every GroupNorm
MANY = 1024  # positions; with fewer PyTorch's bfloat16 norm takes several times as long as float32


def timestep_embedding(
    t: Int[Tensor, " b"], dim: int, variant: Variant = "paper"
) -> Float[Tensor, "b dim"]:
    """Sinusoids of the raw integer time: sine half first, then cosine half.

    Frequencies are exp(-ln(10000) i / (half - 1)), as in the authors' code. The variant openai has
    the cosines first and divides by half.
    """
    half = dim // 2
    steps = half - 1 if variant == "paper" else half
    frequencies = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(10000) / steps)
    )
    angles = t.float()[:, None] * frequencies[None]
    waves = [angles.sin(), angles.cos()]
    return torch.cat(waves if variant == "paper" else waves[::-1], dim=1)


def init_(layer: nn.Module, gain: float = 1.0) -> None:
    """Uniform with variance gain / fan_avg, bias 0: the authors' `default_init(scale)`."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(gain))  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


TINY_GAIN = 1e-10  # the authors' "scale 0" is this small variance, i.e. a gain of 1e-5


def conv(c_in: int, c_out: int, size: int = 3, tiny: bool = False, stride: int = 1) -> nn.Conv2d:
    """A convolution with the paper's initialisation; `tiny` starts it near zero."""
    layer = nn.Conv2d(c_in, c_out, size, stride=stride, padding=size // 2 if stride == 1 else 0)
    init_(layer, TINY_GAIN if tiny else 1.0)
    return layer


def linear(c_in: int, c_out: int) -> nn.Linear:
    """A dense layer with the paper's initialisation."""
    layer = nn.Linear(c_in, c_out)
    init_(layer)
    return layer


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that computes in float32 under autocast too; its output has autocast's type.

    An x_t with little noise loses some of what it tells when it is rounded to bfloat16.
    """
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return layer(x)
    with torch.autocast(kind, enabled=False):
        return layer(x.float()).to(torch.get_autocast_dtype(kind))


class GroupNorm(nn.GroupNorm):
    """PyTorch's; on a CPU bfloat16 goes by way of float32 where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        slow = x.requires_grad or x.shape[-2] * x.shape[-1] < MANY
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and slow:
            found = F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)
            return found.to(x.dtype)
        return super().forward(x)


class ResBlock(nn.Module):
    """GroupNorm, swish, conv, + time, GroupNorm, swish, dropout, conv; plus the shortcut."""

    def __init__(
        self, c_in: int, c_out: int, temb: int, dropout: float, groups: int, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in, eps=eps)
        self.conv1 = conv(c_in, c_out)
        self.time = linear(temb, c_out)
        self.norm2 = GroupNorm(groups, c_out, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, tiny=True)
        self.shortcut = nn.Identity() if c_in == c_out else conv(c_in, c_out, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(temb)[:, :, None, None]  # temb is already through its swish
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention over all positions, scale C^-0.5 for C channels a head, with a residual."""

    def __init__(
        self, c: int, groups: int, eps: float = 1e-6, head_channels: int | None = None
    ) -> None:
        super().__init__()
        check(
            head_channels is None or (head_channels >= 1 and c % head_channels == 0),
            f"{c} channels do not divide into attention heads of {head_channels}; change "
            "head_channels",
        )
        self.heads = 1 if head_channels is None else c // head_channels
        self.norm = GroupNorm(groups, c, eps=eps)
        self.q = conv(c, c, 1)
        self.k = conv(c, c, 1)
        self.v = conv(c, c, 1)
        self.proj = conv(c, c, 1, tiny=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (
            layer(h).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # [b, heads, hw, C]
            for layer in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(h.transpose(2, 3).reshape(x.shape))


class Downsample(nn.Module):
    """3x3 convolution with stride 2 and TensorFlow's SAME padding: 0 before, 1 after.

    The variant openai has 1 on all sides.
    """

    def __init__(self, c: int, variant: Variant = "paper") -> None:
        super().__init__()
        self.conv = conv(c, c, stride=2)
        self.before = 0 if variant == "paper" else 1

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.before, 1, self.before, 1)))


class Upsample(nn.Module):
    """Nearest neighbour x2, then a 3x3 convolution."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Block(nn.Module):
    """A res-block, and the attention that follows it at some resolutions."""

    def __init__(self, res: ResBlock, attention: Attention | None) -> None:
        super().__init__()
        self.res = res
        self.attention = attention if attention is not None else nn.Identity()

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        return self.attention(self.res(x, temb))
