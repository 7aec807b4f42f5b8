"""The network of the authors' code with the names of its PyTorch conversions, for tests; and how it
is compared with ours.

It is written from the paper's tables in plain PyTorch, and from nothing of the package: where both
agree, both are the paper's.
"""

import math

import torch
from safetensors.torch import save_file
from torch import nn

import ddpm
from ddpm.cli import main


def swish(x):
    return x * torch.sigmoid(x)


def time_waves(t, width):
    """Sines, then cosines, of the raw time, in float32: `width` numbers."""
    half = width // 2
    rates = torch.exp(torch.arange(half).float() * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * rates
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


class Residual(nn.Module):
    def __init__(self, c_in, c_out, temb, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps=1e-6)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.temb_proj = nn.Linear(temb, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, temb):
        h = self.conv1(swish(self.norm1(x)))
        h = h + self.temb_proj(swish(temb))[:, :, None, None]
        h = self.conv2(swish(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class SelfAttention(nn.Module):
    """One head over all positions."""

    def __init__(self, c, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        likeness = torch.einsum("bchw,bcij->bhwij", q, k) / math.sqrt(x.shape[1])
        weights = likeness.flatten(3).softmax(3).unflatten(3, x.shape[2:])
        return x + self.proj_out(torch.einsum("bhwij,bcij->bchw", weights, v))


class Strided(nn.Module):
    """Padded after, not before, as TensorFlow's SAME is for even sides."""

    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2)

    def forward(self, x):
        b, c, h, w = x.shape
        padded = x.new_zeros(b, c, h + 1, w + 1)
        padded[:, :, :h, :w] = x
        return self.conv(padded)


class Doubled(nn.Module):
    """Every pixel four times, and a convolution."""

    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Level(nn.Module):
    """Res-blocks from and to given widths, each with attention or none."""

    def __init__(self, widths_in, width, temb, groups, attends):
        super().__init__()
        self.block = nn.ModuleList(Residual(c, width, temb, groups) for c in widths_in)
        self.attn = nn.ModuleList(SelfAttention(width, groups) for _ in widths_in if attends)

    def one(self, i, x, temb):
        x = self.block[i](x, temb)
        return self.attn[i](x) if len(self.attn) else x


class AuthorsNetwork(nn.Module):
    """The U-Net.

    Args:
        ch, mults, blocks: width of the first level, multiplier of each, res-blocks of each.
        attention: numbers of the levels that have it, 0 for the whole image.
        channels, outputs: of the images and of the output.
        groups: of every GroupNorm.
        seed: of the weights.
    """

    def __init__(self, ch, mults, attention, blocks=2, channels=3, outputs=3, groups=32, seed=0):
        super().__init__()
        self.ch, self.blocks, temb = ch, blocks, 4 * ch
        widths = [ch * mult for mult in mults]
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(ch, temb), nn.Linear(temb, temb)])
        self.conv_in = nn.Conv2d(channels, ch, 3, padding=1)
        self.down, self.mid, self.up = nn.ModuleList(), nn.Module(), nn.ModuleList()
        kept, c = [ch], ch
        for i, width in enumerate(widths):
            level = Level([c, *[width] * (blocks - 1)], width, temb, groups, i in attention)
            kept += [width] * blocks
            c = width
            if i < len(widths) - 1:
                level.downsample = Strided(width)
                kept.append(width)
            self.down.append(level)
        self.mid.block_1 = Residual(c, c, temb, groups)
        self.mid.attn_1 = SelfAttention(c, groups)
        self.mid.block_2 = Residual(c, c, temb, groups)
        upwards = []
        for i, width in reversed(list(enumerate(widths))):
            sides = [kept.pop() for _ in range(blocks + 1)]
            befores = [c, *[width] * blocks]
            joined = [before + side for before, side in zip(befores, sides, strict=True)]
            level = Level(joined, width, temb, groups, i in attention)
            if i > 0:
                level.upsample = Doubled(width)
            upwards.append(level)
            c = width
        self.up.extend(upwards[::-1])
        self.norm_out = nn.GroupNorm(groups, c, eps=1e-6)
        self.conv_out = nn.Conv2d(c, outputs, 3, padding=1)
        shaken(self, seed)

    def forward(self, x, t):
        first, second = self.temb.dense
        temb = second(swish(first(time_waves(t, self.ch))))
        h = self.conv_in(x)
        kept = [h]
        for level in self.down:
            for i in range(self.blocks):
                h = level.one(i, h, temb)
                kept.append(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
                kept.append(h)
        h = self.mid.block_1(h, temb)
        h = self.mid.block_2(self.mid.attn_1(h), temb)
        for level in reversed(self.up):
            for i in range(self.blocks + 1):
                h = level.one(i, torch.cat([h, kept.pop()], 1), temb)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(swish(self.norm_out(h)))


def shaken(network, seed):
    """Give a network weights that all matter: none is left as networks begin with."""
    generator = torch.Generator().manual_seed(seed)
    network.eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        numbers = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(numbers / math.sqrt(parameter[0].numel()))
        else:
            parameter.copy_(0.02 * numbers + name.endswith("weight"))


def images(side, channels=3):
    """Three images, of which the faint ones show what is added to a variance; and their times."""
    strength = torch.tensor([1, 0.1, 0.03])[:, None, None, None]
    return strength * torch.randn(3, channels, side, side), torch.tensor([0, 437, 999])


def distance(expected, found):
    """The relative distance of the outputs of the image that agrees least."""
    assert found.shape == expected.shape
    expected, off = expected.detach().flatten(1), (found - expected).detach().flatten(1)
    return float((off.norm(dim=1) / expected.norm(dim=1)).max())


def write(path, tensors):
    """A state dict as the ending of the path says."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def bring_in(path, *options):
    """The model that `ddpm import` makes of a file."""
    run = path.with_name(f"run-{path.name}")
    assert main(["import", str(path), "--out", str(run), *map(str, options)]) == 0
    return ddpm.load(run, "cpu")
