"""The network of the paper's Appendix B: a U-Net with time embedding and self-attention.

It maps (x, t) to an image of `out_channels` and knows nothing of diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm.errors import check
from ddpm.networks.layers import (
    EPS,
    Attention,
    Block,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
    Variant,
    conv,
    in_float32,
    linear,
    timestep_embedding,
)


def class_rows(classes: int, width: int) -> nn.Embedding | None:
    """A row for each class and one for the null class, as a dense layer of a one-hot vector begins;
    None for a network without classes."""
    if classes == 0:
        return None
    rows = nn.Embedding(classes + 1, width)
    nn.init.xavier_uniform_(rows.weight)
    return rows


@dataclass(frozen=True)
class Layers:
    """Makes the blocks of a network, which have all this in common."""

    temb: int
    dropout: float
    groups: int
    eps: float
    head_channels: int | None

    def res(self, c_in: int, c_out: int) -> ResBlock:
        """A res-block."""
        return ResBlock(c_in, c_out, self.temb, self.dropout, self.groups, self.eps)

    def attention(self, c: int) -> Attention:
        """An attention over c channels."""
        return Attention(c, self.groups, self.eps, self.head_channels)

    def block(self, c_in: int, c_out: int, attends: bool) -> Block:
        """A res-block, with attention or without."""
        attention = self.attention(c_out) if attends else None  # first: a seed begins as ever
        return Block(self.res(c_in, c_out), attention)


def check_settings(
    ch: int,
    ch_mult: Sequence[int],
    num_res_blocks: int,
    dropout: float,
    norm_groups: int,
    variant: str,
    classes: int,
) -> None:
    """Refuse settings of a `UNet` that do not fit together."""
    check(len(ch_mult) > 0 and min(ch_mult) > 0, "ch_mult needs at least one positive entry")
    check(ch >= 4 and ch % 2 == 0, f"ch must be even and at least 4, got {ch}")
    check(num_res_blocks >= 1, f"num_res_blocks must be at least 1, got {num_res_blocks}")
    check(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout:g}")
    check(classes >= 0, f"classes must be at least 0, got {classes}")
    check(variant in EPS, f"variant must be {' or '.join(EPS)}, got '{variant}'")
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
        head_channels: channels of an attention head; None, as in the paper, for one head.
        variant: paper; or openai, where GroupNorm adds 1e-5 instead of 1e-6, strided convolutions
            pad all sides and the time embedding begins with its cosines.
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
        head_channels: int | None = None,
        variant: Variant = "paper",
        classes: int = 0,
    ) -> None:
        super().__init__()
        check_settings(ch, ch_mult, num_res_blocks, dropout, norm_groups, variant, classes)
        self.in_channels, self.ch, self.classes = in_channels, ch, classes
        self.head_channels, self.variant = head_channels, variant
        self.activation_checkpointing, self.divisor = False, 2 ** (len(ch_mult) - 1)
        self.check_size(*image_size)
        temb = 4 * ch
        make = Layers(temb, dropout, norm_groups, EPS[variant], head_channels)

        self.time1, self.time2 = linear(ch, temb), linear(temb, temb)
        self.conv_in = conv(in_channels, ch)

        side, c, skips = min(image_size), ch, [ch]
        self.down, self.downsamples = nn.ModuleList(), nn.ModuleList()
        for level, mult in enumerate(ch_mult):
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks):
                blocks.append(make.block(c, ch * mult, side in attn_resolutions))
                c = ch * mult
                skips.append(c)
            self.down.append(blocks)
            if level < len(ch_mult) - 1:
                self.downsamples.append(Downsample(c, variant))
                skips.append(c)
                side //= 2

        self.middle1 = make.res(c, c)
        self.middle_attention = make.attention(c)
        self.middle2 = make.res(c, c)

        self.up, self.upsamples = nn.ModuleList(), nn.ModuleList()
        for level, mult in reversed(list(enumerate(ch_mult))):
            blocks = nn.ModuleList()
            for _ in range(num_res_blocks + 1):
                blocks.append(make.block(c + skips.pop(), ch * mult, side in attn_resolutions))
                c = ch * mult
            self.up.append(blocks)
            if level > 0:
                self.upsamples.append(Upsample(c))
                side *= 2

        self.norm_out = GroupNorm(norm_groups, c, eps=make.eps)
        self.conv_out = conv(c, out_channels, tiny=True)
        self.class_rows = class_rows(classes, temb)  # last: all else begins as without classes

    @property
    def untold(self) -> str:
        """What decides the output and no weights tell, where it is not as in the paper."""
        told = self.head_channels is None and self.variant == "paper"
        return "" if told else f"heads of {self.head_channels}, {self.variant}"

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
        temb = self.time2(F.silu(self.time1(timestep_embedding(t, self.ch, self.variant))))
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
