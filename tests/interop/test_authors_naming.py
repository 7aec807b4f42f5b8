"""State dicts in the naming of the authors' code, against a network written from the paper."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import ddpm
from ddpm.cli import main
from ddpm.diffusion.schedule import schedule_from_betas
from ddpm.errors import DdpmError
from ddpm.interop.authors import DESCRIPTION
from ddpm.interop.export import export_weights
from ddpm.interop.foreign import Told
from ddpm.interop.source import read_foreign
from interop.authors_network import AuthorsNetwork, bring_in, distance, images, write
from mistakes import everything_below, refused

FORMS = {  # settings, side of the images, side to compute at
    "CIFAR-10": ({"ch": 32, "mults": (1, 2, 2, 2), "attention": {1}}, 32, 32),
    "256x256": ({"ch": 32, "mults": (1, 1, 2, 2, 4, 4), "attention": {4}}, 256, 64),
}
SMALL = {"ch": 32, "mults": (1, 2), "attention": {1}, "blocks": 1}  # of 32x32 pixels


def same_weights(found, expected):
    """Whether two networks, or sets of tensors, have the same bits."""
    one, other = (getattr(w, "state_dict", lambda w=w: w)() for w in (found, expected))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize("form", FORMS)
def test_the_papers_forms_compute_the_same_through_both_doors(form, ending, tmp_path, capsys):
    settings, side, computed = FORMS[form]
    theirs = AuthorsNetwork(**settings)
    file = write(tmp_path / f"model.{ending}", theirs.state_dict())
    model = bring_in(file)
    said = capsys.readouterr().out
    assert f"images of {side}x{side} are assumed" in said
    assert "does not say its diffusion, so the paper's is assumed" in said
    x, t = images(computed)
    expected = theirs(x, t)
    assert float(expected.std()) > 0.1
    assert distance(expected, model.network(x, t)) < 1e-5
    python = read_foreign(str(file))
    assert python.kind == "the authors' naming"
    assert python.model.format == model.format == ddpm.ImageFormat(3, side, side)
    assert python.model.config == model.config
    assert same_weights(python.model.network, model.network)
    variance = "fixed_large" if side == 32 else "fixed_small"
    assert model.config.diffusion == ddpm.DiffusionConfig(variance_type=variance)
    assert model.config.network == ddpm.UNetConfig(
        ch=32, ch_mult=settings["mults"], attn_resolutions=(16,), dropout=0.0
    )


def another_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5


def padding_on_all_sides(network):
    for level in network.down:
        if hasattr(level, "downsample"):
            level.downsample = nn.Sequential(level.downsample.conv)
            level.downsample[0].padding = (1, 1)


def keys_for_queries(network):
    attention = network.mid.attn_1
    attention.q, attention.k = attention.k, attention.q


def no_last_attention_upwards(network):
    network.up[1].attn[2] = nn.Identity()


def other_blocks_upwards(network):
    first, second, _ = network.up[2].block
    first.norm2, second.norm2 = second.norm2, first.norm2


@pytest.mark.parametrize(
    "change",
    [
        another_epsilon,
        padding_on_all_sides,
        keys_for_queries,
        no_last_attention_upwards,
        other_blocks_upwards,
    ],
)
def test_the_comparison_sees_what_is_not_the_papers(change, tmp_path):
    theirs = AuthorsNetwork(**FORMS["CIFAR-10"][0])
    found = read_foreign(str(write(tmp_path / "model.pt", theirs.state_dict()))).model.network
    x, t = images(32)
    change(theirs)
    assert distance(theirs(x, t), found(x, t)) > 1e-3


LAYOUTS = {
    "one level": {"ch": 32, "mults": (1,), "attention": ()},
    "one level, attention": {"ch": 32, "mults": (2,), "attention": {0}, "blocks": 1},
    "one block": {"ch": 32, "mults": (1, 2), "attention": (), "blocks": 1},
    "attention everywhere": {"ch": 32, "mults": (1, 2, 1), "attention": {0, 1, 2}},
    "narrower inside": {"ch": 32, "mults": (2, 1), "attention": {0}, "blocks": 3},
    "grey": {**SMALL, "channels": 1, "outputs": 1},
    "learned variance": {**SMALL, "outputs": 6},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(name, tmp_path):
    settings = LAYOUTS[name]
    theirs = AuthorsNetwork(**settings)
    file = write(tmp_path / "model.safetensors", theirs.state_dict())
    model = bring_in(file, "--image-size", 16)
    x, t = images(16, settings.get("channels", 3))
    assert distance(theirs(x, t), model.network(x, t)) < 1e-5
    assert model.format == ddpm.ImageFormat(settings.get("channels", 3), 16, 16)
    assert model.config.network.attn_resolutions == tuple(
        16 >> level for level in settings["attention"]
    )
    assert model.diffusion.learns_variance == (settings.get("outputs") == 6)


@pytest.mark.parametrize("attention", [(), {0, 1}])
def test_where_attention_does_not_tell_the_size_it_is_asked_for(attention, tmp_path, capsys):
    theirs = AuthorsNetwork(**{**SMALL, "attention": attention})
    file = write(tmp_path / "model.pt", theirs.state_dict())
    refused(["import", file, "--out", tmp_path / "run"], capsys, file, "--image-size")
    assert not (tmp_path / "run").exists()


def test_a_size_that_is_told_moves_the_attention(tmp_path, capsys):
    file = write(tmp_path / "model.pt", AuthorsNetwork(**SMALL).state_dict())
    model = bring_in(file, "--image-size", 8)
    assert "are assumed" not in capsys.readouterr().out
    assert model.format == ddpm.ImageFormat(3, 8, 8)
    assert model.config.network.attn_resolutions == (4,)
    bad = ["import", file, "--out", tmp_path / "run", "--image-size", "7"]
    refused(bad, capsys, "divisible by 2, got 7x7")


def test_groups_that_are_told_are_the_ones_of_the_norms(tmp_path):
    theirs = AuthorsNetwork(**SMALL, groups=8)
    file = write(tmp_path / "model.pt", theirs.state_dict())
    x, t = images(32)
    expected = theirs(x, t)
    told = read_foreign(str(file), Told(norm_groups=8)).model
    assert distance(expected, told.network(x, t)) < 1e-5
    assert told.config.network.norm_groups == 8
    assert distance(expected, read_foreign(str(file)).model.network(x, t)) > 1e-2


def test_a_diffusion_that_is_told_is_taken(tmp_path, capsys):
    file = write(tmp_path / "model.pt", AuthorsNetwork(**SMALL).state_dict())
    told = ["--diffusion.schedule", "cosine", "--diffusion.prediction-type", "v_prediction"]
    model = bring_in(file, *told)
    assert "does not say its diffusion" not in capsys.readouterr().out
    assert model.config.diffusion == ddpm.DiffusionConfig(
        schedule="cosine", prediction_type="v_prediction"
    )
    learned = ["--diffusion.variance-type", "learned_range"]
    words = "3 output channels", "learned_range needs 6"
    refused(["import", file, "--out", tmp_path / "run", *learned], capsys, *words)


# -- the forms of a file -------------------------------------------------------------------------


def prefixed(word, tensors):
    return {f"{word}.{name}": value for name, value in tensors.items()}


OPTIMIZER = {
    "state": {0: {"step": torch.tensor(9.0), "exp_avg": torch.ones(3)}},
    "param_groups": [],
}
WRAPPED = {  # what is in the file, and which of the two weights it means
    "plain": (lambda raw, ema: raw, "raw"),
    "an average alone": (lambda raw, ema: {"ema": ema}, "ema"),
    "both": (lambda raw, ema: {"model": raw, "ema": ema}, "ema"),
    "both, the average first": (lambda raw, ema: {"ema": ema, "model": raw}, "ema"),
    "both, with more": (
        lambda raw, ema: {"step": 7, "model": raw, "optimizer": OPTIMIZER, "model_ema": ema},
        "ema",
    ),
    "DDIM's list": (lambda raw, ema: [prefixed("module", raw), OPTIMIZER, 3, 9000, ema], "ema"),
    "DDIM's list without average": (
        lambda raw, ema: [prefixed("module", raw), OPTIMIZER, 3, 9000],
        "raw",
    ),
    "several processes": (lambda raw, ema: prefixed("module", raw), "raw"),
    "an average of several processes": (
        lambda raw, ema: {"model": prefixed("module", raw), "ema": prefixed("module", ema)},
        "ema",
    ),
    "compiled": (lambda raw, ema: prefixed("module", prefixed("_orig_mod", raw)), "raw"),
    "state_dict": (lambda raw, ema: {"state_dict": raw, "epoch": 3, "global_step": 9000}, "raw"),
    "a prefix for both": (
        lambda raw, ema: {"state_dict": {**prefixed("model", raw), **prefixed("ema", ema)}},
        "ema",
    ),
    "parameters": (lambda raw, ema: {n: nn.Parameter(value) for n, value in raw.items()}, "raw"),
}


@pytest.fixture(scope="module")
def pair():
    """Raw and averaged weights of the small network: only their values differ."""
    return AuthorsNetwork(**SMALL, seed=1), AuthorsNetwork(**SMALL, seed=2)


@pytest.mark.parametrize("name", WRAPPED)
def test_of_every_form_of_a_file_the_weights_that_are_meant_are_taken(name, pair, tmp_path, capsys):
    wrap, meant = WRAPPED[name]
    raw, averaged = pair
    wrapped = wrap(raw.state_dict(), averaged.state_dict())
    model = bring_in(write(tmp_path / "model.pt", wrapped))
    x, t = images(32)
    right, wrong = (averaged, raw) if meant == "ema" else (raw, averaged)
    assert distance(right(x, t), model.network(x, t)) < 1e-5
    assert distance(wrong(x, t), model.network(x, t)) > 0.1
    assert ("the averaged weights" in capsys.readouterr().out) == (
        meant == "ema" and name != "an average alone"
    )


def test_the_averaged_weights_of_a_safetensors_file_with_both_are_taken(pair, tmp_path, capsys):
    raw, averaged = pair
    both = {
        **prefixed("model", raw.state_dict()),
        **prefixed("ema", averaged.state_dict()),
    }
    model = bring_in(write(tmp_path / "both.safetensors", both))
    assert "the averaged weights 'ema' are taken" in capsys.readouterr().out
    x, t = images(32)
    assert distance(averaged(x, t), model.network(x, t)) < 1e-5


def without_one(tensors):
    return {name: value for name, value in tensors.items() if name != "mid.attn_1.k.bias"}


def of_other_shapes(tensors):
    return {**tensors, "mid.attn_1.k.bias": torch.zeros(3)}


BAD_AVERAGES = {
    "none": lambda ema: {"ema": None},
    "empty": lambda ema: {"ema": {}},
    "one of two": lambda ema: {"ema": ema, "ema_0.9999": ema},
    "incomplete": lambda ema: {"ema": without_one(ema)},
    "of other shapes": lambda ema: {"ema": of_other_shapes(ema)},
    "of whole numbers": lambda ema: {"ema": {n: v.int() for n, v in ema.items()}},
    "not finite": lambda ema: {"ema": {n: v / 0 for n, v in ema.items()}},
    "a number": lambda ema: {"ema": 0.9999},
    "a list": lambda ema: {"ema": list(ema.values())},
    "two": lambda ema: {"ema": ema, "model_ema": ema},
    "one for each decay": lambda ema: {"ema_0.999": ema, "ema_0.9999": ema},
    "under another name": lambda ema: {"swa_weights": ema},
    "numbers without names": lambda ema: {"ema_params": list(ema.values())},
}


@pytest.mark.parametrize("name", BAD_AVERAGES)
def test_averaged_weights_that_are_none_are_never_replaced_by_the_raw_ones(
    name, pair, tmp_path, capsys
):
    raw, averaged = pair
    bad = BAD_AVERAGES[name](averaged.state_dict())
    file = write(tmp_path / "model.pt", {"model": raw.state_dict(), **bad})
    before = everything_below(tmp_path)
    refused(["import", file, "--out", tmp_path / "run"], capsys, file)
    with pytest.raises(DdpmError):
        read_foreign(str(file))
    assert everything_below(tmp_path) == before


def test_in_ddims_list_too(pair, tmp_path, capsys):
    raw, averaged = pair
    for ema in (None, {}, without_one(averaged.state_dict())):
        whole = [raw.state_dict(), OPTIMIZER, 3, 9000, ema]
        file = write(tmp_path / "model.pt", whole)
        refused(["import", file, "--out", tmp_path / "run"], capsys, file)


@pytest.mark.parametrize("which", [(), ("mid.attn_1.q.weight",)], ids=["all", "one"])
def test_attention_may_come_as_matrices(which, pair, tmp_path):
    raw, _ = pair
    tensors = raw.state_dict()
    for name, value in tensors.items():
        inner = ".attn" in name and name.endswith("weight") and value.ndim == 4
        if inner and (not which or name in which):
            tensors[name] = value[:, :, 0, 0].contiguous()
    assert len([n for n, v in tensors.items() if v.ndim == 2 and ".attn" in n]) == len(
        which or "x" * 16
    )
    model = bring_in(write(tmp_path / "model.safetensors", tensors))
    straight = read_foreign(str(write(tmp_path / "plain.pt", raw.state_dict()))).model
    assert same_weights(model.network, straight.network)


def test_how_the_numbers_lie_in_memory_changes_nothing(pair, tmp_path):
    """Transposed, with channels last, or one number for many."""
    tensors = pair[0].state_dict()
    for name, value in tensors.items():
        if value.ndim == 2:
            tensors[name] = value.T.contiguous().T
        elif value.ndim == 4:
            tensors[name] = value.contiguous(memory_format=torch.channels_last)
    tensors["conv_in.bias"] = torch.tensor([0.25]).expand(32)
    file = write(tmp_path / "model.pt", tensors)
    model = bring_in(file)
    lies = {name: p.stride() for name, p in model.network.named_parameters()}
    straight = read_foreign(str(file)).model.network
    assert {name: p.stride() for name, p in straight.named_parameters()} == lies
    export_weights(model, tmp_path / "out.safetensors")
    assert same_weights(load_file(tmp_path / "out.safetensors"), tensors)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_what_they_are_in_float32(kind, pair, tmp_path):
    raw, _ = pair
    tensors = {name: value.to(kind) for name, value in raw.state_dict().items()}
    model = bring_in(write(tmp_path / "model.safetensors", tensors))
    rounded = AuthorsNetwork(**SMALL)
    rounded.load_state_dict(tensors)
    x, t = images(32)
    assert {value.dtype for value in model.network.state_dict().values()} == {torch.float32}
    assert distance(rounded(x, t), model.network(x, t)) < 1e-5
    export_weights(model, tmp_path / "out.safetensors")
    assert same_weights(load_file(tmp_path / "out.safetensors"), rounded.state_dict())


# -- what cannot be read -------------------------------------------------------------------------


def changed(**tensors):
    return lambda state: {**state, **tensors}


def only(*names):
    return lambda state: {name: state[name] for name in names}


BROKEN = {  # what is done to the tensors, and words of the sentence
    "one is missing": (without_one, "lacks 1 tensor ('mid.attn_1.k.bias')"),
    "one too many": (changed(logvar=torch.zeros(10)), "has 1 tensor ('logvar')"),
    "another shape": (of_other_shapes, "shape (3,), and its network needs (64,)"),
    "an endless number": (
        lambda s: {**s, "conv_in.bias": torch.full((32,), float("inf"))},
        "'conv_in.bias'",
    ),
    "too large for float32": (
        lambda s: {**s, "conv_in.bias": torch.full((32,), 1e300, dtype=torch.float64)},
        "'conv_in.bias'",
    ),
    "whole numbers": (lambda s: {**s, "conv_in.bias": torch.ones(32).int()}, "torch.int32"),
    "sparse": (
        lambda s: {**s, "mid.attn_1.q.weight": torch.eye(64).to_sparse()},
        "'mid.attn_1.q.weight'",
    ),
    "without values": (
        lambda s: {**s, "conv_in.bias": torch.zeros(32, device="meta")},
        "'conv_in.bias'",
    ),
    "a vector for a layer": (lambda s: {**s, "conv_in.weight": torch.ones(3)}, "'conv_in.weight'"),
    "no size": (lambda s: {**s, "conv_out.weight": torch.tensor(1.0)}, "'conv_out.weight'"),
    "no levels": (
        only("temb.dense.0.weight", "conv_in.weight", "conv_out.weight"),
        "lacks 'down.0.block.0.conv1.weight'",
    ),
    "a level far away": (
        lambda s: {**s, "down.9999.block.0.conv1.weight": torch.ones(1, 1)},
        "lacks 'down.2.block.0.conv1.weight'",
    ),
    "no ordinary multiples": (
        lambda s: {**s, "down.1.block.0.conv1.weight": torch.ones(48, 32, 3, 3)},
        "[32, 48] channels",
    ),
    "more colours than the output has": (
        lambda s: {**s, "conv_in.weight": torch.ones(32, 4, 3, 3)},
        "fixed_large needs 4",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_network_of_the_paper_is_refused(name, pair, tmp_path, capsys):
    damage, words = BROKEN[name]
    file = write(tmp_path / "model.pt", damage(pair[0].state_dict()))
    before = everything_below(tmp_path)
    refused(["import", file, "--out", tmp_path / "run"], capsys, file, words)
    assert everything_below(tmp_path) == before


def test_options_that_have_no_meaning_for_it_are_refused(pair, tmp_path, capsys):
    file = write(tmp_path / "model.pt", pair[0].state_dict())
    for option in (["--heads", "4"], ["--null-class"], ["--ignore", "clip_sample"]):
        refused(["import", file, "--out", tmp_path / "run", *option], capsys, option[0], file)


# -- out and in again ----------------------------------------------------------------------------


def exported(model, path):
    """The file that `ddpm export` writes."""
    name = path.with_name(f"our-{path.name}")
    model.save(name)
    assert main(["export", str(name), "--format", "safetensors", "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("form", FORMS)
def test_what_came_in_goes_out_under_the_same_names_with_the_same_bits(form, tmp_path):
    settings, _, computed = FORMS[form]
    theirs = AuthorsNetwork(**settings, seed=1)
    model = bring_in(write(tmp_path / "model.pt", theirs.state_dict()))
    out = exported(model, tmp_path / "out.safetensors")
    assert same_weights(load_file(out), theirs.state_dict())
    other = AuthorsNetwork(**settings, seed=2)
    other.load_state_dict(load_file(out), strict=True)
    x, t = images(computed)
    assert torch.equal(other(x, t), theirs(x, t))


DIFFUSIONS = {
    "the paper's": {},
    "cosine": {"schedule": "cosine", "prediction_type": "v_prediction", "timesteps": 40},
    "learned": {"variance_type": "learned_range", "clip_sample": False},
    "by value": {
        "betas": tuple(0.01 + 0.003 * i for i in range(30)),
        "variance_type": "fixed_small",
    },
}


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_an_exported_file_is_imported_without_a_question(name, tmp_path, capsys):
    """No option, although neither attention nor 32 groups nor the paper's diffusion tells it."""
    diffusion = ddpm.DiffusionConfig(**DIFFUSIONS[name])
    network = ddpm.UNetConfig(
        ch=16, ch_mult=(1, 3), num_res_blocks=1, attn_resolutions=(4, 8), dropout=0.2, norm_groups=8
    )
    config = ddpm.Config(network=network, diffusion=diffusion)
    image_format = ddpm.ImageFormat(1, 8, 12, levels=17)
    built = config.build_network(image_format.shape).requires_grad_(False)
    for parameter in built.parameters():
        parameter.copy_(torch.randn(parameter.shape))
    model = ddpm.Ddpm(config, image_format, built)
    out = exported(model, tmp_path / "a.safetensors")
    capsys.readouterr()
    back = bring_in(out)
    assert "assumed" not in capsys.readouterr().out
    assert (back.config.network, back.config.diffusion) == (network, diffusion)
    assert back.format == image_format
    assert same_weights(back.network, model.network)
    again = exported(back, tmp_path / "b.safetensors")
    assert again.read_bytes() == out.read_bytes()


def test_the_betas_of_the_model_go_out_where_its_settings_say_others(pair, tmp_path):
    model = read_foreign(str(write(tmp_path / "model.pt", pair[0].state_dict()))).model
    betas = model.diffusion.schedule.betas * 0.5
    other = replace(model.diffusion, schedule=schedule_from_betas(betas))
    export_weights(replace(model, diffusion=other), tmp_path / "out.safetensors")
    back = read_foreign(str(tmp_path / "out.safetensors")).model
    assert (back.diffusion.schedule.betas == betas).all()


@pytest.fixture(scope="module")
def described(pair, tmp_path_factory):
    """An exported file: its tensors, and what it says of its model."""
    folder = tmp_path_factory.mktemp("described")
    model = read_foreign(str(write(folder / "model.pt", pair[0].state_dict()))).model
    export_weights(model, folder / "out.safetensors")
    with safe_open(folder / "out.safetensors", "pt") as file:
        return pair[0].state_dict(), json.loads(file.metadata()[DESCRIPTION])


def told_otherwise(group, **settings):
    return lambda said: {
        **said,
        "config": {**said["config"], group: {**said["config"][group], **settings}},
    }


SAYINGS = {  # what is done to the description, and words of the sentence
    "no JSON": (lambda said: "{", "cannot be read"),
    "a list": (lambda said: [], "cannot be read"),
    "no settings": (lambda said: {"images": said["images"]}, "cannot be read"),
    "no sizes": (lambda said: {**said, "images": {"channels": "3"}}, "cannot be read"),
    "no numbers": (
        lambda said: {**said, "images": {"channels": 3, "height": "x", "width": 8}},
        "cannot be read",
    ),
    "words for widths": (told_otherwise("network", ch="wide"), "cannot be read"),
    "an unknown setting": (told_otherwise("network", colour="red"), "network.colour"),
    "another network": (told_otherwise("network", kind="transformer"), "transformer"),
    "another diffusion": (told_otherwise("diffusion", timesteps=-1), "at least 1, got -1"),
    "other widths": (told_otherwise("network", ch=64), "shape"),
    "fewer levels": (told_otherwise("network", ch_mult=[1]), "no place"),
    "enormous": (told_otherwise("network", ch=32 * 10**6), "shape"),
    "without end": (told_otherwise("network", num_res_blocks=10**9), "no end"),
    "classes": (told_otherwise("network", classes=2), "no classes"),
}


@pytest.mark.parametrize("name", SAYINGS)
def test_a_damaged_description_is_a_sentence(name, described, tmp_path, capsys):
    tensors, said = described
    damage, words = SAYINGS[name]
    text = damage(said)
    text = text if isinstance(text, str) else json.dumps(text)
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, {DESCRIPTION: text})
    refused(["import", file, "--out", tmp_path / "run"], capsys, file, words)
    assert not (tmp_path / "run").exists()


def test_what_a_file_says_itself_cannot_be_told(described, tmp_path, capsys):
    tensors, said = described
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, {DESCRIPTION: json.dumps(said)})
    options = (
        ["--image-size", "32"],
        ["--norm-groups", "32"],
        ["--diffusion.timesteps", "1000"],
        ["--heads", "1"],
    )
    for option in options:
        sentence = refused(["import", file, "--out", tmp_path / "run", *option], capsys, file)
        assert sentence.startswith(f"ddpm: {option[0].split('.')[0]}")
