"""`ddpm import` and `ddpm export`: what a user gets wrong on the command line."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ddpm
from ddpm.cli import import_model, main
from ddpm.errors import DdpmError
from ddpm.interop import export
from ddpm.interop.weights_file import read_weights
from helpers import checkpoints, tiny_config, tiny_model
from interop.makers import (
    random_unet,
    same_network,
    write_flat,
    write_unet,
)
from mistakes import everything_below, refused
from system.test_damage import full_disk

CONFIGS = ("unet/config.json", "scheduler/scheduler_config.json", "model_index.json", "ddpm.json")


# -- the command line ----------------------------------------------------------------------------


def authors_file(folder):
    """A file in the authors' naming that says nothing of itself."""
    folder.mkdir()
    save_pipeline = write_flat(folder / "source")
    assert main(["import", str(save_pipeline), "--out", str(folder / "run")]) == 0
    out = ["--out", str(folder / "w.safetensors")]
    assert main(["export", str(folder / "run"), "--format", "safetensors", *out]) == 0
    tensors, _, _ = read_weights(folder / "w.safetensors")
    save_file(tensors, folder / "plain.safetensors")
    return folder / "plain.safetensors"


SOURCES = {
    "a pipeline": write_flat,
    "a network alone": write_unet,
    "a file": authors_file,
    "a file that says everything": lambda folder: authors_file(folder).with_name("w.safetensors"),
}
OPTIONS = {  # and the sources that they have an effect on
    ("--image-size", "8"): {"a file"},
    ("--norm-groups", "4"): {"a file"},
    ("--heads", "1"): set(),
    ("--diffusion.schedule", "const"): {"a network alone", "a file"},
    ("--diffusion.timesteps", "20"): {"a network alone", "a file"},
    ("--null-class",): set(),
    ("--ignore", "thresholding"): set(),
    ("--ignore", "steps_offset", "timestep_spacing"): set(),
    ("--ignore", "beta_start"): set(),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_an_option_without_an_effect_is_refused(source, option, tmp_path, no_import):
    path = SOURCES[source](tmp_path / "given")
    needed = ["--image-size", "8", "--norm-groups", "4"] if source == "a file" else []
    if source in OPTIONS[option]:
        command = ["import", path, "--out", tmp_path / "run", *needed, *option]
        assert main([str(word) for word in command]) == 0
    else:
        no_import(path, options=[*needed, *option])


def test_options_that_have_an_effect_have_it(tmp_path):
    path = authors_file(tmp_path / "given")
    told = ["--image-size", "8", "--norm-groups", "4", "--diffusion.timesteps", "20"]
    options = [*told, "--diffusion.schedule", "const", "--diffusion.beta-end", "0.1"]
    assert main(["import", str(path), "--out", str(tmp_path / "run"), *options]) == 0
    model = ddpm.load(tmp_path / "run", "cpu")
    assert set(model.diffusion.schedule.betas) == {0.1}
    assert model.diffusion.num_timesteps == 20
    assert model.format.height == 8
    same_network(random_unet(), model)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", ""])
@pytest.mark.parametrize("option", ["--image-size", "--norm-groups", "--heads"])
@pytest.mark.parametrize("source", ["a pipeline", "a file"])
def test_numbers_out_of_range_are_refused(source, option, value, tmp_path, no_import):
    no_import(SOURCES[source](tmp_path / "given"), option, options=[option, value])


@pytest.mark.parametrize(("side", "groups", "wrong"), [("8", "3", "3 groups"), ("7", "4", "7x7")])
def test_numbers_that_do_not_fit_the_weights_are_refused(side, groups, wrong, tmp_path, no_import):
    path = authors_file(tmp_path / "given")
    no_import(path, wrong, options=["--image-size", side, "--norm-groups", groups])


@pytest.mark.parametrize("number", ["0", "-3", "none"])
def test_a_diffusion_that_cannot_be_is_refused(number, tmp_path, no_import):
    path = write_unet(tmp_path / "given")
    no_import(path, number, options=["--diffusion.timesteps", number])


def test_a_source_that_is_ours_already_is_told(tmp_path, no_import):
    folder = write_flat(tmp_path / "source")
    assert main(["import", str(folder), "--out", str(tmp_path / "made")]) == 0
    no_import(tmp_path / "made", "is a run of ddpm")
    (checkpoint,) = checkpoints(tmp_path / "made")
    no_import(checkpoint, "is a file of ddpm")
    no_import("cifar10-small", "comes with the package")
    no_import(tmp_path / "made" / "config.json", "config.json")


def test_sources_that_are_not_there_are_told(tmp_path, no_import, capsys):
    no_import(tmp_path / "nowhere", "does not exist")
    no_import("~nobody_of_this_name/x", "~nobody_of_this_name")
    refused(["import"], capsys, "needs a folder")
    refused(["import", "--out", tmp_path / "run"], capsys, "needs a folder")
    refused(["import", write_flat(tmp_path / "source")], capsys, "needs --out")


def test_a_place_that_is_taken_is_kept(tmp_path, capsys):
    folder = write_flat(tmp_path / "source")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = everything_below(tmp_path)
    for out, words in (
        ("file", "is there already"),
        ("full", "is there already"),
        ("source", "is there already"),
        ("file/below", "cannot"),
    ):
        refused(["import", folder, "--out", tmp_path / out], capsys, tmp_path / out, words)
    assert everything_below(tmp_path) == before


def test_a_place_that_is_not_there_yet_or_empty_is_filled(tmp_path):
    folder = write_flat(tmp_path / "source")
    (tmp_path / "empty").mkdir()
    for out in ("a/b/c", "empty"):
        assert main(["import", str(folder), "--out", str(tmp_path / out)]) == 0
        same_network(random_unet(), ddpm.load(tmp_path / out, "cpu"))


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing_behind(there, tmp_path, capsys, monkeypatch):
    """The disk is full at the checkpoint, or at the settings after it."""
    folder, out = write_flat(tmp_path / "source"), tmp_path / "run"
    if there:
        out.mkdir()
    before = everything_below(tmp_path)
    with full_disk(20_000):
        refused(["import", folder, "--out", out], capsys, "cannot write", "free some space")
    assert everything_below(tmp_path) == before

    def full(path, text):
        assert checkpoints(out)
        raise DdpmError(f"cannot write {path}")

    monkeypatch.setattr(import_model, "write_text", full)
    refused(["import", folder, "--out", out], capsys, "cannot write", "config.json")
    assert everything_below(tmp_path) == before


def test_too_little_room_is_told_before_anything_is_written(tmp_path, no_import, monkeypatch):
    monkeypatch.setattr("ddpm.runtime.atomic.free_bytes", lambda path: 1000)
    no_import(write_flat(tmp_path / "source"), "cannot write", "are free")


# -- out -----------------------------------------------------------------------------------------


class Another(nn.Module):
    """A network that is not the paper's."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t):
        return self.scale * x


def model_with(network=None, diffusion=None):
    """A tiny model of other settings."""
    model, config = tiny_model(), tiny_config()
    config = replace(
        config,
        network=replace(config.network, **(network or {})),
        diffusion=replace(config.diffusion, **(diffusion or {})),
    )
    built = config.build_network(model.format.shape)
    return ddpm.Ddpm(config, model.format, built.requires_grad_(False), history=model.history)


NOT_OUT = {
    "the mean before": ("diffusers", {"diffusion": {"prediction_type": "previous_mean"}}, "mean"),
    "a learned variance": ("diffusers", {"diffusion": {"variance_type": "learned"}}, "learned"),
    "twice the channels": ("diffusers", {"network": {"ch_mult": (2,)}}, "ch-mult begins with 2"),
    "classes": ("safetensors", {"network": {"classes": 3}}, "classes 3"),
    "heads": ("safetensors", {"network": {"head_channels": 4}}, "head-channels 4"),
    "other constants": ("safetensors", {"network": {"variant": "openai"}}, "variant openai"),
}


@pytest.mark.parametrize("name", NOT_OUT)
def test_what_has_no_counterpart_is_not_exported(name, tmp_path, capsys):
    form, changes, words = NOT_OUT[name]
    other = {"diffusers": "safetensors", "safetensors": "diffusers"}[form]
    model_with(**changes).save(tmp_path / "model.safetensors")
    before = everything_below(tmp_path)
    command = ["export", tmp_path / "model.safetensors", "--format", form]
    refused([*command, "--out", tmp_path / "out"], capsys, words, f"--format {other}")
    assert everything_below(tmp_path) == before
    command[-1] = other
    assert main([str(word) for word in [*command, "--out", tmp_path / "out"]]) == 0


@pytest.mark.parametrize("form", ["diffusers", "safetensors"])
def test_exports_that_cannot_be_leave_nothing_behind(form, tmp_path, capsys):
    tiny_model().save(tmp_path / "model.safetensors")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = everything_below(tmp_path)
    command = ["export", tmp_path / "model.safetensors", "--format", form, "--out"]
    for out in ("file", "folder", "model.safetensors", "file/below"):
        refused([*command, tmp_path / out], capsys, tmp_path / out)
    with full_disk(5000):
        refused([*command, tmp_path / "out"], capsys, tmp_path / "out", "free some space")
    refused([*command[:-1]], capsys, "needs --out")
    refused(["export", "--out", tmp_path / "out"], capsys, "needs a run")
    refused(["export", tmp_path / "none", "--out", tmp_path / "out"], capsys, "does not exist")
    unknown = ["--format", "onnx", "--out", tmp_path / "out"]
    refused(["export", tmp_path / "model.safetensors", *unknown], capsys, "onnx", "safetensors")
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("write", ["export_diffusers", "export_weights"])
def test_a_network_of_ones_own_is_not_exported(write, tmp_path):
    model = replace(tiny_model(), network=Another().requires_grad_(False))
    arguments = (tmp_path / "out", "title") if write == "export_diffusers" else (tmp_path / "out",)
    with pytest.raises(DdpmError, match=r"Another; model\.save"):
        getattr(export, write)(model, *arguments)
    assert not list(tmp_path.iterdir())
