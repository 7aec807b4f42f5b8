"""Where a picture comes from stays with it, and draws it again."""

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import __version__
from ddpm.cli import main
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import KEY, Provenance, fingerprint, model_name, read_provenance
from helpers import checkpoint_path, measured_model, tiny_config, tiny_model
from mistakes import refused

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs in the current folder: `run`, and `other` of other weights."""
    tiny_model().save(checkpoint_path(tmp_path / "run", 3))
    tiny_model(seed=1).save(checkpoint_path(tmp_path / "other", 3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(out, *options, n=5, run="run"):
    words = ["sample", run, "-n", n, "--out", out, "--steps", 5, *options]
    assert main([str(word) for word in words]) == 0


def printed_command(path, capsys, *run):
    """What `ddpm info` says is to be typed, but for --out."""
    capsys.readouterr()
    assert main(["info", str(path), *run]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("ddpm sample"))
    return shlex.split(line)[1:-2], said


HOWS = {
    "the default": [],
    "a seed": ["--seed", "7"],
    "ddim": ["--sampler", "ddim"],
    "ddim with noise": ["--sampler", "ddim", "--eta", "0.5"],
    "langevin": ["--sampler", "langevin"],
    "a variance": ["--variance", "fixed_small"],
    "quadratic": ["--trajectory", "quadratic", "--sampler", "dpm-solver"],
    "bf16": ["--precision", "bf16"],
}


@pytest.mark.parametrize("how", HOWS)
def test_an_image_is_drawn_again_from_what_it_says(how, runs, capsys):
    """A middle one of its batch, alone this time."""
    draw("set", *HOWS[how], "--batch-size", 5)
    path = runs / "set" / "000003.png"
    command, said = printed_command(path, capsys)
    assert "synthetic" in said
    assert "run is that model" in said
    assert main([*command, "--out", "again"]) == 0
    assert [p.name for p in (runs / "again").glob("*.png")] == ["000003.png"]
    assert (runs / "again" / "000003.png").read_bytes() == path.read_bytes()


def test_own_timesteps_are_drawn_again(runs, capsys):
    words = ["sample", "run", "-n", "2", "--out", "set", "--trajectory", "0", "3", "9", "19"]
    assert main(words) == 0
    command, _ = printed_command(runs / "set" / "000001.png", capsys)
    assert main([*command, "--out", "again"]) == 0
    first, second = (Image.open(runs / d / "000001.png") for d in ("set", "again"))
    assert np.array_equal(np.array(first), np.array(second))


@pytest.mark.parametrize("out", ["grid.png", "set.npz"])
def test_a_picture_of_many_is_drawn_again(out, runs, capsys):
    draw(out, "--seed", 3, "--first", 2)
    command, _ = printed_command(out, capsys)
    again = f"again{out[-4:]}"
    assert main([*command, "--out", again]) == 0
    assert (runs / again).read_bytes() == (runs / out).read_bytes()


def test_every_image_says_its_own_number(runs):
    draw("set", "--seed", 3, "--batch-size", 2)
    found = [read_provenance(path) for path in sorted((runs / "set").glob("*.png"))]
    assert [one.index for one in found] == [0, 1, 2, 3, 4]
    one = found[0]
    assert one.model == fingerprint(load("run"))
    assert (one.name, one.version, one.synthetic) == ("run", __version__, True)
    assert one.settings["seed"] == 3
    assert one.settings["sampler"] == "ancestral"
    assert one.settings["plan"]["steps"] == 5
    assert one.settings["precision"] == "fp32"


def test_the_strip_beside_the_grid_is_marked_too(runs):
    draw("grid.png", "--progressive")
    assert read_provenance(runs / "grid-progressive.png") is not None


def test_the_text_stands_before_the_pixels_as_utf8(runs):
    """So that it survives a file that is read from its beginning, and any name."""
    shutil.copytree("run", "Läufe-走")
    draw("set", n=1, run="Läufe-走")
    data = (runs / "set" / "000000.png").read_bytes()
    assert b"iTXtddpm\0" in data
    assert data.index(b"iTXtddpm") < data.index(b"IDAT")
    assert "Läufe-走".encode() in data
    assert b"trainedAlgorithmicMedia" in data
    with Image.open(runs / "set" / "000000.png") as picture:
        assert json.loads(picture.info[KEY])["name"] == "Läufe-走"
        assert "ynthetic" in picture.info["Description"]


def test_text_behind_the_pixels_is_found_too(runs):
    """Some programs move it there when they save a picture again."""
    draw("set", n=1)
    path = runs / "set" / "000000.png"
    data = path.read_bytes()
    begin = data.index(b"iTXtddpm") - 4
    end = begin + 12 + int.from_bytes(data[begin : begin + 4], "big")
    tail = data.index(b"\0\0\0\0IEND")
    moved = data[:begin] + data[end:tail] + data[begin:end] + data[tail:]
    (runs / "moved.png").write_bytes(moved)
    assert read_provenance(runs / "moved.png") == read_provenance(path)


@pytest.mark.parametrize("out", ["set", "grid.png", "set.npz"])
def test_it_can_be_left_out(out, runs, capsys):
    draw(out, "--no-provenance")
    path = runs / out / "000000.png" if out == "set" else runs / out
    assert read_provenance(path) is None
    assert b"ddpm" not in path.read_bytes()
    refused(["info", path], capsys, "does not say where it comes from")


def test_a_path_from_the_root_is_not_told(runs, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    draw(runs / "set", run=runs / "run")
    for path in [*(runs / "set").glob("*.png"), runs / "set" / "samples.json"]:
        assert str(runs.parent).encode() not in path.read_bytes()
    assert read_provenance(runs / "set" / "000000.png").name == "run"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("cifar10-small", "cifar10-small"),
        ("runs/demo", "runs/demo"),
        ("/home/alice/secret/demo", "demo"),
        ("../alice/demo", "demo"),
        ("~/demo", "demo"),
    ],
)
def test_what_a_model_is_called(typed, name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    assert model_name(typed) == name


def test_another_model_of_the_name_is_told(runs, capsys):
    draw("set", n=1)
    path = runs / "set" / "000000.png"
    _, said = printed_command(path, capsys, "other")
    assert "other is another model" in said
    command, said = printed_command(path, capsys, str(runs / "run"))
    assert command[1] == str(runs / "run")
    assert "is that model" in said
    shutil.rmtree("run")
    _, said = printed_command(path, capsys)
    assert "run is not here" in said


@pytest.mark.parametrize(
    "document", ["", "{", "[]", "{}", '{"model": "a"}', '{"model": 1, "name": 2, "command": 3}']
)
def test_damaged_provenance_is_told(document, runs, capsys):
    from ddpm.data.exact_files import save_png

    save_png(Image.new("L", (8, 8)), runs / "x.png", {KEY: document})
    refused(["info", "x.png"], capsys, "x.png")
    with pytest.raises(DdpmError):
        Provenance.parse(document)


@pytest.mark.parametrize("name", ["no.png", "text.png", "cut.npz", "photo.jpg", "set"])
def test_what_says_nothing_is_told(name, runs, capsys):
    (runs / "text.png").write_text("no picture")
    (runs / "cut.npz").write_bytes(b"PK\x03\x04")
    Image.new("RGB", (8, 8)).save(runs / "photo.jpg")
    (runs / "set").mkdir()
    refused(["info", name], capsys, name)


def test_too_many_words_are_told(runs, capsys):
    refused(["info", "run", "other"], capsys, "other")


def test_of_copies_what_decides_a_picture(runs):
    one = Provenance.of(load("run"), "run", ["figure", "samples", "run"], seed=3)
    again = Provenance.parse(one.document())
    assert again == one
    assert again.command == ("figure", "samples", "run")
    path = str(runs / "run")
    assert Provenance.of(load("run"), path, ["figure", "samples", path]) != one
    assert Provenance.of(load("run"), path, ["figure", "samples", path], seed=3) == one


def test_the_strip_is_drawn_again_by_its_own_command(runs, capsys):
    draw("grid.png", "--progressive")
    command, _ = printed_command("grid-progressive.png", capsys)
    assert main([*command, "--out", "again.png"]) == 0
    strip, again = (runs / f"{name}-progressive.png" for name in ("grid", "again"))
    assert strip.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", ["1", "2", "-x"])
def test_a_class_is_drawn_again_by_its_name(name, runs, capsys):
    """Which may be another one's number."""
    config = tiny_config()
    config = replace(
        config,
        network=replace(config.network, classes=3),
        data=replace(config.data, class_names=("1", "2", "-x")),
    )
    network = config.build_network((1, 8, 8))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    Ddpm(config, ImageFormat(1, 8, 8, 17), network).save(checkpoint_path(runs / "cls", 1))
    draw("set", f"--class={name}", "--guidance", 2, run="cls")
    path = runs / "set" / "000003.png"
    command, _ = printed_command(path, capsys)
    assert main([*command, "--out", "again"]) == 0
    assert (runs / "again" / path.name).read_bytes() == path.read_bytes()
    draw("plain", run="cls")
    assert (runs / "plain" / path.name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize("name", ["1", "sample", "0", "-n"])
def test_a_run_may_be_called_like_a_word_of_the_command(name, runs, capsys):
    shutil.copytree("run", f"./{name}")
    draw("set", run=f"./{name}")
    command, _ = printed_command(runs / "set" / "000000.png", capsys, "other")
    assert command[:4] == ["sample", "other", "-n", "1"]


def test_a_picture_drawn_while_training_says_so_and_names_no_command(runs, capsys):
    words = ["--training.steps", "4", "--training.sample-every", "4", "--training.batch-size", "8"]
    words += ["--diffusion.timesteps", "20"]
    assert main(["train", "digits", "--out", "trained", *words]) == 0
    path = next((runs / "trained").rglob("*.png"))
    found = read_provenance(path)
    assert (found.name, found.command, found.settings["step"]) == ("trained", (), 4)
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    assert "to draw it again" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "value", ["null", "3", '"words"', '{"command": "train", "name": null, "model": null}']
)
def test_hostile_text_is_no_traceback(value, runs, capsys):
    from ddpm.data.exact_files import save_png

    save_png(Image.new("L", (8, 8)), runs / "x.png", {KEY: value})
    refused(["info", "x.png"], capsys, "x.png")


def test_a_picture_too_large_for_pillow_is_told(runs, capsys, monkeypatch):
    draw("grid.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(["info", "grid.png"], capsys, "grid.png")


def test_other_weights_read_otherwise_are_another_model():
    model = tiny_model()
    other = replace(model, diffusion=replace(model.diffusion, prediction_type="v_prediction"))
    assert fingerprint(model) != fingerprint(other)


@pytest.mark.parametrize("reconstruct", ["mean", "sample"])
def test_what_a_part_of_an_archive_decodes_to_is_marked(reconstruct, runs, capsys):
    measured_model().save(checkpoint_path(runs / "m", 1))
    draw("set", "--no-provenance", run="m")
    assert main(["compress", "m", "set/000000.png", "-o", "x.ddpm"]) == 0
    part = ["decompress", "m", "x.ddpm", "--fraction", "0.5", "--reconstruct", reconstruct]
    assert main([*part, "-o", "part.png"]) == 0
    assert read_provenance(runs / "part.png").command[0] == "decompress"
    assert main([*part, "-o", "bare.png", "--no-provenance"]) == 0
    assert read_provenance(runs / "bare.png") is None
    assert main(["decompress", "m", "x.ddpm", "-o", "whole.png"]) == 0
    assert read_provenance(runs / "whole.png") is None  # these are the images that came in


def test_compress_says_that_the_mark_goes(runs, capsys):
    measured_model().save(checkpoint_path(runs / "m", 1))
    draw("set", run="m")
    path = runs / "set" / "000000.png"
    capsys.readouterr()
    assert main(["compress", "m", str(path), "-o", "x.ddpm"]) == 0
    assert "no longer marked as synthetic" in capsys.readouterr().out
    draw("bare", "--no-provenance", run="m")
    capsys.readouterr()
    assert main(["compress", "m", "bare/000000.png", "-o", "y.ddpm"]) == 0
    assert "synthetic" not in capsys.readouterr().out
