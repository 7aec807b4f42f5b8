"""The network against diffusers with the same weights, TensorFlow's padding, and the paper."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from ddpm.errors import DdpmError
from ddpm.networks.unet import Attention, Downsample, ResBlock, UNet, timestep_embedding

PAPER_256 = {"image_size": (256, 256), "ch_mult": (1, 1, 2, 2, 4, 4), "dropout": 0.0}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 35_746_307),
        ({"out_channels": 6}, 35_749_766),
        (PAPER_256, 113_673_219),
        ({**PAPER_256, "ch": 192}, 255_677_955),
    ],
)
def test_the_papers_parameter_counts(options, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(**options).parameters()) == count


def peer(ch, mults, attention, size):
    def blocks(prefix, levels):
        return tuple(f"Attn{prefix}" if i in attention else prefix for i in levels)

    levels = list(range(len(mults)))
    return UNet2DModel(
        sample_size=size,
        block_out_channels=tuple(ch * m for m in mults),
        layers_per_block=2,
        down_block_types=blocks("DownBlock2D", levels),
        up_block_types=blocks("UpBlock2D", levels[::-1]),
        downsample_padding=0,
        attention_head_dim=None,
        norm_num_groups=8,
        norm_eps=1e-6,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def copy_layer(target, source):
    weight = source.weight.detach()
    with torch.no_grad():
        target.weight.copy_(weight.reshape(target.weight.shape))
        target.bias.copy_(source.bias.detach())


def copy_res(target, source):
    for ours, theirs in (
        (target.norm1, source.norm1),
        (target.conv1, source.conv1),
        (target.time, source.time_emb_proj),
        (target.norm2, source.norm2),
        (target.conv2, source.conv2),
    ):
        copy_layer(ours, theirs)
    if not isinstance(target.shortcut, nn.Identity):
        copy_layer(target.shortcut, source.conv_shortcut)


def copy_attention(target, source):
    for ours, theirs in (
        (target.norm, source.group_norm),
        (target.q, source.to_q),
        (target.k, source.to_k),
        (target.v, source.to_v),
        (target.proj, source.to_out[0]),
    ):
        copy_layer(ours, theirs)


def copy_weights(ours, theirs):
    copy_layer(ours.time1, theirs.time_embedding.linear_1)
    copy_layer(ours.time2, theirs.time_embedding.linear_2)
    copy_layer(ours.conv_in, theirs.conv_in)
    levels = list(zip(ours.down, theirs.down_blocks, strict=True))
    levels += zip(ours.up, theirs.up_blocks, strict=True)
    for mine, other in levels:
        for i, block in enumerate(mine):
            copy_res(block.res, other.resnets[i])
            if not isinstance(block.attention, nn.Identity):
                copy_attention(block.attention, other.attentions[i])
    for i, layer in enumerate(ours.downsamples):
        copy_layer(layer.conv, theirs.down_blocks[i].downsamplers[0].conv)
    for i, layer in enumerate(ours.upsamples):
        copy_layer(layer.conv, theirs.up_blocks[i].upsamplers[0].conv)
    copy_res(ours.middle1, theirs.mid_block.resnets[0])
    copy_attention(ours.middle_attention, theirs.mid_block.attentions[0])
    copy_res(ours.middle2, theirs.mid_block.resnets[1])
    copy_layer(ours.norm_out, theirs.conv_norm_out)
    copy_layer(ours.conv_out, theirs.conv_out)


@pytest.mark.parametrize(
    ("mults", "attention", "size"),
    [((1, 2, 2, 2), {1}, 32), ((1, 1, 2, 2, 4, 4), {4}, 256)],
    ids=["cifar10", "256x256"],
)
def test_output_equals_diffusers_with_the_same_weights(mults, attention, size):
    theirs = peer(16, mults, attention, size).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            # Biases and norms at their start would hide a layer that is left out or mixed up.
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = UNet(image_size=(size, size), ch=16, ch_mult=mults, dropout=0.1, norm_groups=8).eval()
    copy_weights(ours, theirs)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    batch = 1 if size == 256 else 3
    x, t = torch.randn(batch, 3, size, size), torch.tensor([0, 421, 999])[:batch]
    with torch.inference_mode():
        expected, found = theirs(x, t).sample, ours(x, t)
    assert float(expected.std()) > 0.05
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_the_embedding_is_sine_then_cosine_with_half_minus_one():
    dim, t = 8, 37
    half = dim // 2
    frequencies = [math.exp(-math.log(10000) * i / (half - 1)) for i in range(half)]
    expected = [math.sin(t * f) for f in frequencies] + [math.cos(t * f) for f in frequencies]
    found = timestep_embedding(torch.tensor([t]), dim)[0]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_downsampling_pads_like_tensorflow_same():
    """Stride 2, kernel 3, even input: SAME pads nothing before and one after."""
    layer = Downsample(1)
    x = torch.randn(1, 1, 6, 8)
    weight = layer.conv.weight.detach().numpy()[0, 0]
    image = np.zeros((7, 9))
    image[:6, :8] = x[0, 0].numpy()
    expected = np.array(
        [
            [(image[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weight).sum() for j in range(4)]
            for i in range(3)
        ]
    )
    assert layer(x)[0, 0].detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_attention_has_one_head_and_scale_c_to_the_minus_half():
    layer, x = Attention(8, 4), torch.randn(2, 8, 3, 4)
    with torch.no_grad():
        layer.proj.weight.normal_()
        h = layer.norm(x)
        q, k, v = (f(h).flatten(2) for f in (layer.q, layer.k, layer.v))
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), dim=-1)
        mixed = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
        assert torch.allclose(layer(x), x + layer.proj(mixed), atol=1e-5)


def test_initial_weights_are_fan_average_uniform_and_the_last_ones_nearly_zero():
    block = ResBlock(64, 128, 256, 0.0, 32)
    bound = math.sqrt(3 / (9 * (64 + 128) / 2))
    weight = block.conv1.weight.detach()
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    tiny = [
        (block.conv2, 9 * 128),
        (Attention(64, 32).proj, 64),
        (UNet(ch=32, image_size=(32, 32)).conv_out, 9 * (32 + 3) / 2),
    ]
    for layer, fan in tiny:
        expected = 1e-5 * math.sqrt(1 / fan)
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.1)
    network = UNet(ch=32, image_size=(32, 32))
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert all(float(b.detach().abs().max()) == 0 for b in biases)


def test_every_group_norm_has_the_papers_epsilon_and_32_groups():
    with torch.device("meta"):
        norms = [m for m in UNet().modules() if isinstance(m, nn.GroupNorm)]
    assert {(m.eps, m.num_groups) for m in norms} == {(1e-6, 32)}


def test_attention_stands_where_the_paper_puts_it():
    with torch.device("meta"):
        network = UNet()
    down = [[isinstance(b.attention, Attention) for b in level] for level in network.down]
    up = [[isinstance(b.attention, Attention) for b in level] for level in network.up]
    assert down == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    assert up == [[False] * 3, [False] * 3, [True] * 3, [False] * 3]


def small(**options):
    return UNet(**{"ch": 8, "ch_mult": (1, 2), "norm_groups": 4, "attn_resolutions": (), **options})


def test_any_size_that_can_be_halved_works():
    network = small(in_channels=1, out_channels=2, image_size=(8, 12))
    x = torch.randn(2, 1, 8, 12)
    assert network(x, torch.tensor([0, 5])).shape == (2, 2, 8, 12)
    assert network(torch.randn(2, 1, 16, 4), torch.tensor([0, 5])).shape == (2, 2, 16, 4)


def test_sizes_that_do_not_fit_give_a_sentence():
    with pytest.raises(DdpmError, match="divisible by 2, got 9x8"):
        small(image_size=(9, 8))
    network = small(image_size=(8, 8))
    with pytest.raises(DdpmError, match="divisible by 2"):
        network(torch.randn(1, 3, 7, 8), torch.tensor([0]))
    with pytest.raises(DdpmError, match="3 channels, got 1"):
        network(torch.randn(1, 1, 8, 8), torch.tensor([0]))
    with pytest.raises(DdpmError, match="groups"):
        small(norm_groups=3)
    for bad in ({"ch": 3}, {"num_res_blocks": 0}, {"dropout": 1.0}, {"ch_mult": ()}):
        with pytest.raises(DdpmError):
            small(**bad)
