"""State dicts of openai/improved-diffusion, against a network written after its architecture."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from torch import nn

import ddpm
from ddpm.cli import main
from ddpm.config import DiffusionConfig
from ddpm.interop.foreign import Told
from ddpm.interop.source import read_foreign
from ddpm.likelihood.plan import Plan
from interop.authors_network import bring_in, distance, images, write
from interop.openai_network import OpenaiNetwork
from mistakes import everything_below, refused

SIDE = 16
SMALL = {"ch": 32, "mults": (1, 2, 2), "attention": {1}, "heads": 4, "blocks": 1}


def read(file, heads, **told):
    """The model of a file, for which these things are told."""
    return read_foreign(str(file), Told(image_size=SIDE, heads=heads, **told)).model


LAYOUTS = {
    "CIFAR-10, one head": {"ch": 32, "mults": (1, 2, 2, 2), "attention": {1}},
    "CIFAR-10, four heads": {"ch": 32, "mults": (1, 2, 2, 2), "attention": {1, 2}, "heads": 4},
    "256x256, one head": {"ch": 32, "mults": (1, 1, 2, 2, 3), "attention": {2, 3}, "blocks": 1},
    "attention in the middle alone": {"ch": 32, "mults": (1, 2), "attention": (), "heads": 4},
    "attention everywhere": {"ch": 32, "mults": (2, 2, 2), "attention": {0, 1, 2}, "heads": 4},
    "one level": {"ch": 32, "mults": (1,), "attention": ()},
    "one level, attention": {"ch": 32, "mults": (2,), "attention": {0}, "heads": 2, "blocks": 1},
    "three blocks": {"ch": 32, "mults": (1, 2), "attention": {1}, "heads": 8, "blocks": 3},
    "narrower inside": {"ch": 32, "mults": (2, 1), "attention": {1}, "heads": 4, "blocks": 1},
    "heads of one channel": {"ch": 32, "mults": (1, 1), "attention": {0}, "heads": 32, "blocks": 1},
    "grey": {**SMALL, "channels": 1, "outputs": 1},
    "learned variance": {**SMALL, "outputs": 6},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_computes_the_same(name, tmp_path, capsys):
    settings = LAYOUTS[name]
    heads, channels = settings.get("heads", 1), settings.get("channels", 3)
    theirs = OpenaiNetwork(**settings)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    model = bring_in(file, "--image-size", SIDE, "--heads", heads)
    said = capsys.readouterr().out
    assert "(improved-diffusion)" in said
    assert "does not say its diffusion, so the paper's is assumed" in said
    x, t = images(SIDE, channels)
    expected = theirs(x, t)
    assert float(expected.std()) > 0.1
    assert distance(expected, model.network(x, t)) < 1e-5
    assert model.format == ddpm.ImageFormat(channels, SIDE, SIDE)
    middle = 32 * settings["mults"][-1]
    assert model.config.network == ddpm.UNetConfig(
        ch=32,
        ch_mult=settings["mults"],
        num_res_blocks=settings.get("blocks", 2),
        attn_resolutions=tuple(SIDE >> level for level in sorted(settings["attention"])),
        dropout=0.0,
        head_channels=None if heads == 1 else middle // heads,
        variant="openai",
    )
    learned = "learned_range" if settings.get("outputs") == 6 else "fixed_large"
    assert model.config.diffusion == DiffusionConfig(variance_type=learned)


def the_papers_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6


def padding_after_alone(network):
    network.input_blocks[2][0].op.padding = (0, 0)
    network.input_blocks[2].insert(0, nn.ZeroPad2d((0, 1, 0, 1)))


def queries_of_all_heads_first(network):
    for module in network.modules():
        if hasattr(module, "qkv"):
            weight = module.qkv.weight
            weight.copy_(weight.unflatten(0, (4, 3, -1)).transpose(0, 1).flatten(0, 2))


def one_head(network):
    for module in network.modules():
        if hasattr(module, "qkv"):
            module.heads = 1


@pytest.mark.parametrize(
    "change", [the_papers_epsilon, padding_after_alone, queries_of_all_heads_first, one_head]
)
def test_the_comparison_sees_what_is_not_improved_diffusions(change, tmp_path):
    theirs = OpenaiNetwork(**SMALL)
    network = read(write(tmp_path / "model.pt", theirs.state_dict()), 4).network
    x, t = images(SIDE)
    assert distance(theirs(x, t), network(x, t)) < 1e-5
    change(theirs)
    assert distance(theirs(x, t), network(x, t)) > 1e-3


def test_other_heads_are_another_network(tmp_path):
    """Nothing but the user knows how many there are."""
    theirs = OpenaiNetwork(**SMALL)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    x, t = images(SIDE)
    for heads in (1, 2, 8):
        assert distance(theirs(x, t), read(file, heads).network(x, t)) > 1e-2


def test_groups_that_are_told_are_the_ones_of_the_norms(tmp_path):
    theirs = OpenaiNetwork(**SMALL, groups=16)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    x, t = images(SIDE)
    assert distance(theirs(x, t), read(file, 4, norm_groups=16).network(x, t)) < 1e-5
    assert distance(theirs(x, t), read(file, 4).network(x, t)) > 1e-2


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_every_form_of_a_file(kind, tmp_path):
    """Halves, prefixes, an average beside the raw weights, queries as a matrix."""
    raw, averaged = OpenaiNetwork(**SMALL, seed=1), OpenaiNetwork(**SMALL, seed=2)
    tensors = {name: value.to(kind) for name, value in averaged.state_dict().items()}
    averaged.load_state_dict(tensors)
    for name, value in tensors.items():
        if "qkv.weight" in name:
            tensors[name] = value[:, :, 0]
    both = {
        **{f"model.{name}": value for name, value in raw.state_dict().items()},
        **{f"ema.{name}": value.contiguous() for name, value in tensors.items()},
    }
    x, t = images(SIDE)
    for file in (
        write(tmp_path / "both.safetensors", both),
        write(tmp_path / "both.pt", {"model": raw.state_dict(), "ema": tensors}),
        write(tmp_path / "one.pt", {f"module.{name}": value for name, value in tensors.items()}),
    ):
        assert distance(averaged(x, t), read(file, 4).network(x, t)) < 1e-5


# -- drawing -------------------------------------------------------------------------------------


def test_a_sample_of_ddim_is_that_of_a_plain_loop(tmp_path):
    theirs = OpenaiNetwork(**SMALL)
    model = read(write(tmp_path / "model.pt", theirs.state_dict()), 4)
    states = []
    times = (3, 120, 400, 700, 999)
    drawn = model.sample(
        2, seed=5, sampler="ddim", plan=Plan(trajectory=times), callback=states.append
    )
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    x = states[0].x_t
    for t, before in zip(times[::-1], [*times[-2::-1], None], strict=True):
        epsilon = theirs(x, torch.full((2,), t))
        x_0 = (x - math.sqrt(1 - abar[t]) * epsilon) / math.sqrt(abar[t])
        x_0 = x_0.clamp(-1, 1)
        epsilon = (x - math.sqrt(abar[t]) * x_0) / math.sqrt(1 - abar[t])
        end = 1.0 if before is None else abar[before]
        x = math.sqrt(end) * x_0 + math.sqrt(1 - end) * epsilon
    expected = ((x + 1) * 127.5).round().clamp(0, 255)
    assert [state.timestep for state in states] == list(times[::-1])
    assert float(expected.std()) > 10
    assert float((drawn.float() - expected).abs().max()) <= 1


def test_a_learned_variance_lies_between_beta_and_the_posteriors_by_logarithm(tmp_path):
    theirs = OpenaiNetwork(**SMALL, outputs=6)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    model = bring_in(file, "--image-size", SIDE, "--heads", 4)
    x, t = images(SIDE)[0], torch.tensor([1, 437, 999])
    beta = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - beta)
    posterior = beta[1:] * (1 - abar[:-1]) / (1 - abar[1:])
    high, low = torch.tensor(np.log([beta[t], posterior[t - 1]])).float()[..., None, None, None]
    share = (theirs(x, t)[:, 3:] + 1) / 2
    found = model.diffusion.p_mean_variance(model.denoiser(), x, t).log_variance
    assert torch.allclose(found, share * high + (1 - share) * low, atol=1e-4)


# -- out -----------------------------------------------------------------------------------------


def test_it_goes_out_to_diffusers_and_back_and_not_under_the_authors_names(tmp_path, capsys):
    theirs = OpenaiNetwork(**SMALL)
    model = bring_in(
        write(tmp_path / "model.pt", theirs.state_dict()), "--image-size", SIDE, "--heads", 4
    )
    run, out = str(tmp_path / "run-model.pt"), tmp_path / "out"
    assert main(["export", run, "--out", str(out)]) == 0
    x, t = images(SIDE)
    with torch.no_grad():
        assert distance(theirs(x, t), DDPMPipeline.from_pretrained(out).unet(x, t).sample) < 1e-5
    back = ddpm.load(out, "cpu")
    assert back.config.network == model.config.network
    one, other = model.network.state_dict(), back.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    words = "no counterpart of --network.head-channels 16", "--format diffusers"
    weights = ["export", run, "--format", "safetensors", "--out", tmp_path / "w.safetensors"]
    refused(weights, capsys, *words)
    assert not (tmp_path / "w.safetensors").exists()


# -- what cannot be read -------------------------------------------------------------------------

TOLD = ["--image-size", SIDE, "--heads", 4]
LONGER = ["--diffusion.timesteps", 4000, "--diffusion.schedule", "cosine"]
REFUSED = {  # settings of their network, options, words of the sentence
    "scaling and shifting": ({"scales": True}, TOLD, ["use_scale_shift_norm"]),
    "classes": ({"classes": 10}, TOLD, ["label_emb"]),
    "no options": ({}, [], ["--heads", "--image-size", "by default 4"]),
    "no heads": ({}, TOLD[:2], ["--heads"]),
    "no size": ({}, TOLD[2:], ["--image-size"]),
    "heads that do not fit": ({}, ["--image-size", 16, "--heads", 5], ["64 channels", "5 heads"]),
    "heads that fit in the middle alone": (
        {"mults": (1, 3), "attention": {0}},
        ["--image-size", 16, "--heads", 3],
        ["32 and 96 channels", "3 heads"],
    ),
    "heads of two sizes": (
        {"mults": (1, 2), "attention": {0}},
        TOLD,
        ["32 and 64 channels", "heads of one size"],
    ),
    "a size that cannot be halved": ({}, ["--image-size", 6, "--heads", 4], ["divisible by 4"]),
    "groups that do not fit": ({}, [*TOLD, "--norm-groups", 7], ["7 groups"]),
    "two images at once": ({"channels": 6}, TOLD, ["3 output channels", "needs 6"]),
    "a learned variance, told to be fixed": (
        {"outputs": 6},
        [*TOLD, "--diffusion.variance-type", "fixed_large"],
        ["6 output channels", "fixed_large needs 3"],
    ),
    "a variance that it does not have": (
        {},
        [*TOLD, "--diffusion.variance-type", "learned_range"],
        ["3 output channels", "learned_range needs 6"],
    ),
    "another T": ({}, [*TOLD, *LONGER], ["T = 4,000", "--ignore rescale_timesteps"]),
    "another T, something else ignored": (
        {},
        [*TOLD, *LONGER, "--ignore", "clip_sample"],
        ["--ignore clip_sample has no effect"],
    ),
    "nothing to ignore": (
        {},
        [*TOLD, "--ignore", "rescale_timesteps"],
        ["--ignore rescale_timesteps has no effect"],
    ),
    "an option of diffusers": ({}, [*TOLD, "--null-class"], ["--null-class has no effect"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_network_or_other_options_are_refused_by_name(name, tmp_path, capsys):
    settings, options, words = REFUSED[name]
    tensors = OpenaiNetwork(**{**SMALL, "heads": 1, **settings}).state_dict()
    file = write(tmp_path / "model.pt", tensors)
    before = everything_below(tmp_path)
    refused(["import", file, "--out", tmp_path / "run", *options], capsys, *words)
    assert everything_below(tmp_path) == before


def test_a_longer_chain_without_rescaled_times_is_taken(tmp_path):
    theirs = OpenaiNetwork(**SMALL)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    model = bring_in(file, *TOLD, *LONGER, "--ignore", "rescale_timesteps")
    assert model.diffusion.num_timesteps == 4000
    x, t = images(SIDE)[0], torch.tensor([0, 2001, 3999])
    assert distance(theirs(x, t), model.network(x, t)) < 1e-5


def without(*ends):
    return lambda state: {name: value for name, value in state.items() if not name.endswith(ends)}


def with_one(name, value):
    return lambda state: {**state, name: value}


BROKEN = {  # what is done to the tensors, and words of the sentence
    "one is missing": (without("middle_block.1.norm.bias"), "('middle_block.1.norm.bias')"),
    "no queries": (without("middle_block.1.qkv.weight"), "middle_block.1.q.weight"),
    "one too many": (with_one("logvar", torch.ones(3)), "1 tensor ('logvar')"),
    "strided by averages": (without(".op.weight", ".op.bias"), "lacks"),
    "queries of another width": (
        with_one("middle_block.1.qkv.weight", torch.ones(96, 64, 1)),
        "'middle_block.1.q.weight'",
    ),
    "queries in no thirds": (
        with_one("middle_block.1.qkv.bias", torch.ones(190)),
        "'middle_block.1.qkv.bias'",
    ),
    "queries of no width": (with_one("middle_block.1.qkv.bias", torch.ones(0)), "shape (0,)"),
    "a number for queries": (with_one("middle_block.1.qkv.bias", torch.tensor(1.0)), "shape ()"),
    "sparse queries": (
        with_one("middle_block.1.qkv.weight", torch.ones(192, 64).to_sparse()),
        "'middle_block.1.qkv.weight'",
    ),
    "a vector for a layer": (
        with_one("input_blocks.0.0.weight", torch.ones(32)),
        "'input_blocks.0.0.weight'",
    ),
    "no size": (with_one("out.2.weight", torch.tensor(1.0)), "'out.2.weight'"),
    "strided at once": (with_one("input_blocks.0.0.op.weight", torch.ones(2, 2)), "res-block"),
    "a block far away": (with_one("input_blocks.9999.0.op.weight", torch.ones(2, 2)), "lacks"),
    "not finite": (with_one("out.2.bias", torch.full((3,), math.nan)), "'out.2.bias'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_such_network_is_refused(name, tmp_path, capsys):
    damage, words = BROKEN[name]
    file = write(tmp_path / "model.pt", damage(OpenaiNetwork(**SMALL).state_dict()))
    before = everything_below(tmp_path)
    refused(["import", file, "--out", tmp_path / "run", *TOLD], capsys, file, words)
    assert everything_below(tmp_path) == before
