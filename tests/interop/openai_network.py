"""The network of openai/improved-diffusion with its names, in plain PyTorch, for tests.

Everything is a list of numbered blocks of numbered modules there. It has other constants than the
paper's network: GroupNorm adds 1e-5, strided convolutions pad all sides, the cosines come first.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from interop.authors_network import shaken


def norm(c, groups):
    return nn.GroupNorm(groups, c, eps=1e-5)


def time_waves(t, width):
    """Cosines, then sines, in float32."""
    half = width // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half).float() / half)
    angles = t.float()[:, None] * rates
    return torch.cat([torch.cos(angles), torch.sin(angles)], 1)


class Residual(nn.Module):
    """With `scales`, the time embedding scales and shifts instead of being added."""

    def __init__(self, c_in, c_out, temb, groups, scales):
        super().__init__()
        self.in_layers = nn.Sequential(
            norm(c_in, groups), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(temb, c_out * (1 + scales)))
        self.out_layers = nn.Sequential(
            norm(c_out, groups), nn.SiLU(), nn.Dropout(0.3), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        same = c_in == c_out
        self.skip_connection = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1)
        self.scales = scales

    def forward(self, x, temb):
        h, told = self.in_layers(x), self.emb_layers(temb)[:, :, None, None]
        if self.scales:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(x) + h


class SelfAttention(nn.Module):
    """Several heads; for each its queries, keys and values lie together in `qkv`."""

    def __init__(self, c, heads, groups):
        super().__init__()
        self.norm, self.heads = norm(c, groups), heads
        self.qkv, self.proj_out = nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x):
        flat = x.flatten(2)
        mixed = []
        for lying_together in self.qkv(self.norm(flat)).chunk(self.heads, 1):
            q, k, v = lying_together.chunk(3, 1)  # [b, c of a head, positions]
            weights = (q.transpose(1, 2) @ k / math.sqrt(q.shape[1])).softmax(2)
            mixed.append(v @ weights.transpose(1, 2))
        return (flat + self.proj_out(torch.cat(mixed, 1))).reshape(x.shape)


class Strided(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Doubled(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Numbered(nn.Sequential):
    """Modules one after the other; only res-blocks are told of the time."""

    def forward(self, x, temb):
        for module in self:
            x = module(x, temb) if isinstance(module, Residual) else module(x)
        return x


class OpenaiNetwork(nn.Module):
    """The U-Net.

    Args:
        ch, mults, blocks: width of the first level, multiplier of each, res-blocks of each.
        attention: numbers of the levels that have it, 0 for the whole image.
        heads: of every attention.
        channels, outputs: of the images and of the output.
        groups: of every GroupNorm.
        scales: use_scale_shift_norm.
        classes: of a conditional network; 0 for none.
        seed: of the weights.
    """

    def __init__(
        self,
        ch,
        mults,
        attention,
        heads=1,
        blocks=2,
        channels=3,
        outputs=3,
        groups=32,
        scales=False,
        classes=0,
        seed=0,
    ):
        super().__init__()
        self.ch, temb = ch, 4 * ch
        self.time_embed = nn.Sequential(nn.Linear(ch, temb), nn.SiLU(), nn.Linear(temb, temb))
        if classes:
            self.label_emb = nn.Embedding(classes, temb)

        def stage(c_in, level, *after):
            width = ch * mults[level]
            parts = [Residual(c_in, width, temb, groups, scales)]
            parts += [SelfAttention(width, heads, groups)] * (level in attention)
            return Numbered(*parts, *after)

        inputs, kept, c = [Numbered(nn.Conv2d(channels, ch, 3, padding=1))], [ch], ch
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                inputs.append(stage(c, level))
                c = ch * mult
                kept.append(c)
            if level + 1 < len(mults):
                inputs.append(Numbered(Strided(c)))
                kept.append(c)
        self.input_blocks = nn.ModuleList(inputs)
        self.middle_block = Numbered(
            Residual(c, c, temb, groups, scales),
            SelfAttention(c, heads, groups),
            Residual(c, c, temb, groups, scales),
        )
        outwards = []
        for level in reversed(range(len(mults))):
            for i in range(blocks + 1):
                doubled = [Doubled(ch * mults[level])] * (level > 0 and i == blocks)
                outwards.append(stage(c + kept.pop(), level, *doubled))
                c = ch * mults[level]
        self.output_blocks = nn.ModuleList(outwards)
        self.out = nn.Sequential(norm(c, groups), nn.SiLU(), nn.Conv2d(c, outputs, 3, padding=1))
        shaken(self, seed)

    def forward(self, x, t):
        temb = self.time_embed(time_waves(t, self.ch))
        kept = []
        for block in self.input_blocks:
            x = block(x, temb)
            kept.append(x)
        x = self.middle_block(x, temb)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], 1), temb)
        return self.out(x)
