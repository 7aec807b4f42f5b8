"""The network of the paper's Appendix B: a U-Net with time embedding and self-attention.

It maps (x, t) to an image of `out_channels` and knows nothing of diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm.errors import check


def timestep_embedding(t: Int[Tensor, " b"], dim: int) -> Float[Tensor, "b dim"]:
    """Sinusoids of the raw integer time: sine half first, then cosine half.

    Frequencies are exp(-ln(10000) i / (half - 1)), as in the authors' code.
    """
    half = dim // 2
    frequencies = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(10000) / (half - 1))
    )
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def init_(layer: nn.Module, gain: float = 1.0) -> None:
    """Uniform with variance gain / fan_avg, bias 0: the authors' `default_init(scale)`."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(gain))  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


TINY_GAIN = 1e-10  # the authors' "scale 0" is this small variance, i.e. a gain of 1e-5


def conv(c_in: int, c_out: int, size: int = 3, tiny: bool = False, stride: int = 1) -> nn.Conv2d:
    """A convolution with the paper's initialisation; `tiny` starts it near zero."""
    padding = size // 2 if stride == 1 else 0
    layer = nn.Conv2d(c_in, c_out, size, stride=stride, padding=padding)
    init_(layer, TINY_GAIN if tiny else 1.0)
    return layer


def linear(c_in: int, c_out: int) -> nn.Linear:
    """A dense layer with the paper's initialisation."""
    layer = nn.Linear(c_in, c_out)
    init_(layer)
    return layer


def class_rows(classes: int, width: int) -> nn.Embedding | None:
    """A row for each class and one for the null class, as a dense layer of a one-hot vector begins;
    None for a network without classes."""
    if classes == 0:
        return None
    rows = nn.Embedding(classes + 1, width)
    nn.init.xavier_uniform_(rows.weight)
    return rows


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that computes in float32 under autocast too; its output has autocast's type.

    An x_t with little noise loses some of what it tells when it is rounded to bfloat16.
    """
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return layer(x)
    with torch.autocast(kind, enabled=False):
        return layer(x.float()).to(torch.get_autocast_dtype(kind))


class ResBlock(nn.Module):
    """GroupNorm, swish, conv, + time, GroupNorm, swish, dropout, conv; plus the shortcut."""

    def __init__(self, c_in: int, c_out: int, temb: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = conv(c_in, c_out)
        self.time = linear(temb, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv(c_out, c_out, tiny=True)
        self.shortcut = nn.Identity() if c_in == c_out else conv(c_in, c_out, 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(temb)[:, :, None, None]  # temb is already through its swish
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention over all positions, one head, scale C^-0.5, with a residual."""

    def __init__(self, c: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.q = conv(c, c, 1)
        self.k = conv(c, c, 1)
        self.v = conv(c, c, 1)
        self.proj = conv(c, c, 1, tiny=True)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        h = self.norm(x)
        q, k, v = (
            layer(h).flatten(2).transpose(1, 2).unsqueeze(1)  # [b, 1 head, positions, c]
            for layer in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        h = h.squeeze(1).transpose(1, 2).reshape(b, c, height, width)
        return x + self.proj(h)


class Downsample(nn.Module):
    """3x3 convolution with stride 2 and TensorFlow's SAME padding: 0 before, 1 after."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = conv(c, c, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


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


def check_settings(
    ch: int,
    ch_mult: Sequence[int],
    num_res_blocks: int,
    dropout: float,
    norm_groups: int,
    classes: int,
) -> None:
    """Refuse settings of a `UNet` that do not fit together."""
    check(len(ch_mult) > 0 and min(ch_mult) > 0, "ch_mult needs at least one positive entry")
    check(ch >= 4 and ch % 2 == 0, f"ch must be even and at least 4, got {ch}")
    check(num_res_blocks >= 1, f"num_res_blocks must be at least 1, got {num_res_blocks}")
    check(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout:g}")
    check(classes >= 0, f"classes must be at least 0, got {classes}")
    for mult in ch_mult:
        check(
            norm_groups >= 1 and ch * mult % norm_groups == 0,
            f"{ch * mult} channels do not divide into {norm_groups} groups; "
            "change ch or norm_groups",
        )


class UNet(nn.Module):
    """The U-Net of Appendix B.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the output: as many, or twice as many for learned variances.
        image_size: (height, width) it is trained on; decides where `attn_resolutions` fall.
        ch: channels of the first level; the time embedding has 4 ch.
        ch_mult: channel multiplier of each level; each level but the last halves the image.
        num_res_blocks: res-blocks a level on the way down; one more on the way up.
        attn_resolutions: sides (the shorter one) at which attention follows every res-block.
        dropout: probability inside the res-blocks.
        norm_groups: groups of every GroupNorm; the paper has 32.
        classes: classes of a conditional network; 0, as in the paper, for none. With some, each has
            a row of 4 ch numbers that is added to the time embedding before its last swish, and so
            has the null class, which stands for no class and has the number `classes`.

    Raises:
        DdpmError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        image_size: tuple[int, int] = (32, 32),
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        norm_groups: int = 32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        check_settings(ch, ch_mult, num_res_blocks, dropout, norm_groups, classes)
        self.in_channels, self.ch, self.classes = in_channels, ch, classes
        self.activation_checkpointing, self.divisor = False, 2 ** (len(ch_mult) - 1)
        self.check_size(*image_size)
        temb = 4 * ch

        def block(c_in: int, c_out: int, side: int) -> Block:
            attention = Attention(c_out, norm_groups) if side in attn_resolutions else None
            return Block(ResBlock(c_in, c_out, temb, dropout, norm_groups), attention)

        self.time1, self.time2 = linear(ch, temb), linear(temb, temb)
        self.conv_in = conv(in_channels, ch)

        side, c, skips = min(image_size), ch, [ch]
        self.down, self.downsamples = nn.ModuleList(), nn.ModuleList()
        for level, mult in enumerate(ch_mult):
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks):
                blocks.append(block(c, ch * mult, side))
                c = ch * mult
                skips.append(c)
            self.down.append(blocks)
            if level < len(ch_mult) - 1:
                self.downsamples.append(Downsample(c))
                skips.append(c)
                side //= 2

        self.middle1 = ResBlock(c, c, temb, dropout, norm_groups)
        self.middle_attention = Attention(c, norm_groups)
        self.middle2 = ResBlock(c, c, temb, dropout, norm_groups)

        self.up, self.upsamples = nn.ModuleList(), nn.ModuleList()
        for level, mult in reversed(list(enumerate(ch_mult))):
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks + 1):
                blocks.append(block(c + skips.pop(), ch * mult, side))
                c = ch * mult
            self.up.append(blocks)
            if level > 0:
                self.upsamples.append(Upsample(c))
                side *= 2

        self.norm_out = nn.GroupNorm(norm_groups, c, eps=1e-6)
        self.conv_out = conv(c, out_channels, tiny=True)
        self.class_rows = class_rows(classes, temb)  # last: all else begins as without classes

    def check_size(self, height: int, width: int) -> None:
        """Raise unless both sides can be halved as often as the network needs."""
        check(
            height > 0 and width > 0 and height % self.divisor == width % self.divisor == 0,
            f"this network needs image sides divisible by {self.divisor}, got {height}x{width}; "
            "resize the images or use fewer levels in ch_mult",
        )

    def blocks(self) -> Iterator[nn.Module]:
        """The parts that hold most of the weights; see `ddpm.networks.sharding`."""
        return (module for module in self.modules() if isinstance(module, Block))

    def run_block(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """The output of a block; optionally its activations are recomputed in the backward pass."""
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def embedding(self, t: Tensor, labels: Tensor | None) -> Float[Tensor, "b e"]:
        """What every res-block is told of the time and the class."""
        temb = self.time2(F.silu(self.time1(timestep_embedding(t, self.ch))))
        if self.class_rows is None:
            check(labels is None, "this network knows no classes; call it without labels")
        else:
            null = torch.full_like(t, self.classes)
            temb = temb + self.class_rows(null if labels is None else labels)
        return F.silu(temb)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b o h w"]:
        """Evaluate at images x, raw integer times t and, with classes, labels 0..classes.

        Labels may be left out: all images then have the null class, whose number is `classes`.

        Raises:
            DdpmError: other channels than `in_channels`, sides that cannot be halved so often, or
                labels for a network without classes.
        """
        check(
            x.shape[1] == self.in_channels,
            f"this network expects images of {self.in_channels} channels, got {x.shape[1]}",
        )
        self.check_size(x.shape[2], x.shape[3])
        temb = self.embedding(t, labels)
        h = in_float32(self.conv_in, x)
        skips = [h]
        for level, blocks in enumerate(self.down):
            for layer in blocks:  # type: ignore[attr-defined]
                h = self.run_block(layer, h, temb)
                skips.append(h)
            if level < len(self.downsamples):
                h = self.downsamples[level](h)
                skips.append(h)

        h = self.run_block(self.middle1, h, temb)
        h = self.run_block(self.middle2, self.run_block(self.middle_attention, h), temb)

        for level, blocks in enumerate(self.up):
            for layer in blocks:  # type: ignore[attr-defined]
                h = self.run_block(layer, torch.cat([h, skips.pop()], dim=1), temb)
            if level < len(self.upsamples):
                h = self.upsamples[level](h)

        return self.conv_out(F.silu(self.norm_out(h)))
