"""Heads of an attention and the constants of other code bases: against diffusers with its own
defaults and against plain formulas; and the paper's network, which they leave as it was."""

import math

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

import ddpm
from ddpm.codec import Coding, LastStage
from ddpm.codec.route import Route
from ddpm.codec.snapping import Grid
from ddpm.codec.window_network import WindowNetwork
from ddpm.errors import DdpmError
from ddpm.interop.diffusers_unet import NAMING
from ddpm.interop.naming import names, to_ours
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.networks.layers import Attention, Downsample, ResBlock, timestep_embedding
from ddpm.networks.unet import UNet, check_settings
from ddpm.provenance import fingerprint
from interop.authors_network import distance, images

SMALL = {
    "image_size": (8, 8),
    "ch": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
    "dropout": 0.0,
    "norm_groups": 4,
}


def lively(network, seed=1):
    """The same network with no weight as networks begin with, so that everything shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


# -- diffusers with its defaults -----------------------------------------------------------------

LAYOUTS = {  # widths, levels with attention, blocks, side
    "CIFAR-10": ((16, 32, 32), {1}, 2, 16),
    "attention everywhere": ((8, 24), {0, 1}, 1, 8),
    "one level": ((16,), (), 1, 8),
    "256x256": ((8, 8, 16, 16, 32, 32), {4}, 1, 32),
}


def with_its_defaults(widths, attention, blocks, side):
    """diffusers' network; its constants and heads are not said."""
    kinds = ["Attn" * (level in attention) + "DownBlock2D" for level in range(len(widths))]
    return lively(
        UNet2DModel(
            sample_size=side,
            block_out_channels=widths,
            layers_per_block=blocks,
            down_block_types=kinds,
            up_block_types=[kind.replace("Down", "Up") for kind in reversed(kinds)],
            norm_num_groups=4,
        )
    )


def ours_with_its_weights(theirs, widths, attention, blocks, side, **options):
    network = UNet(
        image_size=(side, side),
        ch=widths[0],
        ch_mult=[width // widths[0] for width in widths],
        num_res_blocks=blocks,
        attn_resolutions=[side >> level for level in attention],
        dropout=0.0,
        norm_groups=4,
        **{"head_channels": 8, "variant": "openai", **options},
    ).eval()
    network.load_state_dict(to_ours(theirs.state_dict(), network, NAMING, "diffusers"))
    return network


@pytest.mark.parametrize("name", LAYOUTS)
def test_output_and_gradients_are_those_of_diffusers_with_its_defaults(name):
    theirs = with_its_defaults(*LAYOUTS[name])
    assert theirs.config.norm_eps == 1e-5
    assert theirs.config.downsample_padding == 1
    assert theirs.config.flip_sin_to_cos
    assert theirs.config.freq_shift == 0
    assert theirs.config.attention_head_dim == 8
    ours = ours_with_its_weights(theirs, *LAYOUTS[name])
    x, t = images(LAYOUTS[name][-1])
    expected, found = theirs(x, t).sample, ours(x, t)
    assert float(expected.detach().std()) > 0.1
    assert distance(expected, found) < 1e-5
    weight = torch.randn(expected.shape)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    gradients = {name: value.grad for name, value in theirs.named_parameters()}
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for mine, other in names(ours, NAMING).items():
        gradient = gradients[other]
        off = ours.get_parameter(mine).grad.reshape(gradient.shape) - gradient
        # Keys' biases change nothing: their gradients are rounding errors.
        assert float(off.norm()) < 1e-4 * max(float(gradient.norm()), 1e-3 * scale), mine


@pytest.mark.parametrize("options", [{"variant": "paper"}, {"head_channels": None}])
def test_each_of_the_two_settings_counts(options):
    theirs = with_its_defaults(*LAYOUTS["CIFAR-10"])
    x, t = images(16)
    with torch.no_grad():
        expected = theirs(x, t).sample
        other = ours_with_its_weights(theirs, *LAYOUTS["CIFAR-10"], **options)
        assert distance(expected, other(x, t)) > 1e-2


# -- plain formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 8, 32])
def test_the_other_embedding_is_cosine_then_sine_with_half(dim):
    half, times = dim // 2, [0, 1, 37, 999]
    frequencies = [math.exp(-math.log(10000) * i / half) for i in range(half)]
    found = timestep_embedding(torch.tensor(times), dim, "openai")
    for t, row in zip(times, found.tolist(), strict=True):
        waves = [math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies]
        assert row == pytest.approx(waves, abs=1e-4)


@pytest.mark.parametrize(("variant", "before"), [("paper", 0), ("openai", 1)])
def test_where_a_strided_convolution_pads(variant, before):
    layer, x = Downsample(2, variant), torch.randn(1, 2, 6, 8)
    weight, bias = (p.detach().double().numpy() for p in (layer.conv.weight, layer.conv.bias))
    padded = np.zeros((2, before + 7, before + 9))
    padded[:, before : before + 6, before : before + 8] = x[0].numpy()
    expected = [
        [
            np.einsum("cij,ocij->o", padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], weight) + bias
            for j in range(4)
        ]
        for i in range(3)
    ]
    assert layer(x)[0].detach().permute(1, 2, 0).numpy() == pytest.approx(
        np.array(expected), abs=1e-5
    )


@pytest.mark.parametrize("head_channels", [None, 1, 2, 4, 8])
def test_heads_are_neighbouring_channels_of_scale_c_to_the_minus_half(head_channels):
    layer, x = lively(Attention(8, 4, head_channels=head_channels)), torch.randn(2, 8, 3, 4)
    size = head_channels or 8
    with torch.no_grad():
        h = layer.norm(x)
        q, k, v = (f(h).flatten(2) for f in (layer.q, layer.k, layer.v))
        mixed = []
        for first in range(0, 8, size):
            part = slice(first, first + size)
            likeness = torch.einsum("bci,bcj->bij", q[:, part], k[:, part]) / math.sqrt(size)
            mixed.append(torch.einsum("bij,bcj->bci", likeness.softmax(-1), v[:, part]))
        expected = x + layer.proj(torch.cat(mixed, 1).reshape(x.shape))
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("variant", "eps"), [("paper", 1e-6), ("openai", 1e-5)])
def test_every_norm_adds_what_the_variant_says(variant, eps):
    norms = [m for m in UNet(**SMALL, variant=variant).modules() if isinstance(m, nn.GroupNorm)]
    assert {(norm.eps, norm.num_groups) for norm in norms} == {(eps, 4)}
    assert ResBlock(8, 8, 32, 0.0, 4).norm1.eps == Attention(8, 4).norm.eps == 1e-6


# -- the paper's network is what it was ----------------------------------------------------------


def test_one_head_is_one_head_however_it_is_said():
    """Bit for bit, with its gradients."""
    options = {**SMALL, "ch_mult": (2, 2)}
    one, other = lively(UNet(**options)), UNet(**options, head_channels=16).eval()
    other.load_state_dict(one.state_dict())
    x, t = images(8)
    outputs = [network(x, t) for network in (one, other)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for mine, same in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, same.grad)


def test_neither_setting_changes_what_a_seed_begins_with():
    weights = []
    for options in ({}, {"head_channels": 4}, {"variant": "openai"}):
        torch.manual_seed(0)
        weights.append(UNet(**SMALL, **options).state_dict())
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


def test_a_seed_begins_with_the_weights_that_it_began_with_before_there_were_variants():
    torch.manual_seed(0)
    weights = UNet(**SMALL).state_dict()
    kept = {
        "time1.weight": -0.08856591582298279,
        "down.1.0.res.conv1.weight": 0.12336915731430054,
        "down.1.0.attention.q.weight": -0.16343088448047638,
        "up.0.1.attention.v.weight": 0.24903811514377594,
        "upsamples.0.conv.weight": -0.12724237143993378,
        "conv_out.weight": -1.8192633888247656e-06,
    }
    for name, first in kept.items():
        assert float(weights[name].flatten()[0]) == pytest.approx(first, rel=1e-6), name


def counted(network):
    """The same network with weights that no library's random numbers decide."""
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(((torch.arange(p.numel()) % 13) / 16 - 0.375).reshape(p.shape))
    return network


def model(**options):
    """A model with such weights, measured by hand."""
    config = ddpm.Config(
        data=ddpm.DataConfig(image_size=8),
        network=ddpm.UNetConfig(**{k: v for k, v in SMALL.items() if k != "image_size"}, **options),
        diffusion=ddpm.DiffusionConfig(betas=(0.1, 0.2, 0.3, 0.4)),
    )
    image_format = ddpm.ImageFormat(3, 8, 8)
    mse = np.ones((4, 3, 8, 8), np.float32) * [[[[0.5]]], [[[1.0]]], [[[1.5]]], [[[2.0]]]]
    error = DenoisingError(np.arange(4), mse.astype(np.float32), np.arange(1.0, 5.0), 2)
    network = counted(config.build_network(image_format.shape)).requires_grad_(False)
    torch.manual_seed(0)
    stage = LastStage(256, Grid(), WindowNetwork(3, (1, 3), 2, 8, 2).frozen())
    coding = Coding(stage, False, Route((3, 1), (10,)), {1: 5.0, 3: 6.0}, 0.01)
    return ddpm.Ddpm(config, image_format, network, denoising_error=error, coding=coding)


SETTINGS = [
    {},
    {"head_channels": 8},
    {"head_channels": 4},
    {"variant": "openai"},
    {"head_channels": 8, "variant": "openai"},
]


def test_fingerprints_of_the_papers_network_are_what_they_were_and_all_others_differ():
    """The weights are the same; files of another network must not be taken for this one's."""
    models = [model(**settings) for settings in SETTINGS]
    codec = [found.for_codec().fingerprint for found in models]
    drawn = [fingerprint(found) for found in models]
    assert drawn[0] == "e4d7778f9b741d516929963f0341dac9"
    assert len(set(codec)) == len(set(drawn)) == len(SETTINGS)


@pytest.mark.parametrize("settings", SETTINGS)
def test_both_settings_are_kept_with_the_model(settings, tmp_path):
    made = model(**settings)
    made.save(tmp_path / "model.safetensors")
    back = ddpm.load(tmp_path / "model.safetensors", "cpu")
    assert back.config.network == made.config.network
    assert fingerprint(back) == fingerprint(made)
    x, t = images(8)
    with torch.no_grad():
        assert torch.equal(back.network(x, t), made.network(x, t))


def test_a_file_of_one_network_is_not_decompressed_by_another():
    pixels = [torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)]
    one, other = model(), model(variant="openai")
    content = one.compress(pixels, steps=2)
    assert torch.equal(one.decompress(content).images[0], pixels[0])
    with pytest.raises(DdpmError, match="model"):
        other.decompress(content)


def test_heads_that_do_not_divide_and_unknown_variants_are_a_sentence():
    for heads in (3, 0, -8, 16):
        with pytest.raises(DdpmError, match=f"8 channels do not divide into .* heads of {heads};"):
            Attention(8, 4, head_channels=heads)
    with pytest.raises(DdpmError, match="variant must be paper or openai, got 'guided'"):
        check_settings(8, (1,), 1, 0.0, 4, "guided", 0)
