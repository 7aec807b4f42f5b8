"""`ddpm figure`: every figure of a tiny model, of whose images, and one sentence for mistakes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.cli import main
from ddpm.figures.named import FIGURES
from ddpm.provenance import Provenance
from full_range import full_range_model, one_thread
from helpers import tiny_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow

FEW = {
    "samples": ["--n", "2", "--steps", "3", "--trajectory", "even"],
    "rate-distortion": ["--n", "2"],
    "progressive": ["--n", "2", "--columns", "3"],
    "shared-latents": ["--n", "1", "--t", "12", "5"],
    "interpolation": ["--pairs", "1", "--t", "5"],
    "coarse-to-fine": ["--t", "4", "0"],
    "progressive-quality": ["--n", "4", "--columns", "2"],
    "neighbours": ["--n", "2", "--k", "2"],
    "denoising": ["--columns", "3"],
    "schedule": [],
    "probe": ["--n", "60", "--t", "3"],
}


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of the embedded digits."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    tiny_model().save(path)
    return str(path)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A model of photographs, whose data are nowhere."""
    path = tmp_path_factory.mktemp("model") / "grey.safetensors"
    full_range_model(1).save(path)
    return str(path)


def pictures(folder, n, side=8, seed=0):
    """A folder of grey noise."""
    folder.mkdir()
    values = np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)
    for i, pixels in enumerate(values):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return values


def said_of(path):
    """What a figure says of itself."""
    with Image.open(path) as picture:
        return json.loads(picture.text["ddpm"])


@pytest.mark.parametrize("name", list(FEW))
def test_every_figure_is_written_and_says_where_it_comes_from(run, name, tmp_path, capsys):
    out = tmp_path / "made" / "f.png"
    assert main(["figure", name, run, *FEW[name], "--out", str(out)]) == 0
    assert f"{name} in {out}: " in capsys.readouterr().out
    assert said_of(out)["synthetic"] is True
    assert said_of(out)["command"] == ["figure", name, "tiny.safetensors", *FEW[name]]
    assert ("precision" in said_of(out)["settings"]) == (name != "schedule")
    assert sorted(path.name for path in out.parent.iterdir()) == ["f.png"]
    # The same command draws the same picture.
    again = tmp_path / "again.png"
    assert main(["figure", name, run, *FEW[name], f"--out={again}"]) == 0
    with Image.open(out) as first, Image.open(again) as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))


def test_all_figures_but_classes_are_tried_above():
    assert list(FEW) == [name for name in FIGURES if name != "classes"]


def test_without_a_name_all_figures_are_listed(capsys):
    assert main(["figure"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  ")]
    assert shown == list(FIGURES)


def test_names_that_are_taken_are_not_overwritten(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["figure", "schedule", run]) == 0
    assert main(["figure", "schedule", run]) == 0
    assert sorted(everything_below(tmp_path)) == [
        tmp_path / "schedule-1.png",
        tmp_path / "schedule.png",
    ]
    refused(["figure", "schedule", run, "--out", "schedule.png"], capsys, "not overwritten")


def test_provenance_can_be_left_out(run, tmp_path):
    out = tmp_path / "s.png"
    assert main(["figure", "schedule", run, "--no-provenance", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert "ddpm" not in getattr(picture, "text", {})


def shown(picture_path, x, y, side=8, scale=12):
    """The image whose upper left pixel is there."""
    with Image.open(picture_path) as picture:
        values = np.asarray(picture)[:, :, 0]
    return values[y : y + side * scale : scale, x : x + side * scale : scale]


def last_source(path):
    """The image at the lower right of a figure of interpolation."""
    with Image.open(path) as picture:
        width, height = picture.size
    return shown(path, width - 9 * 8, height - 9 * 8, scale=8)


def test_images_of_ones_own_are_shown_pixel_by_pixel(grey, tmp_path, capsys):
    values = pictures(tmp_path / "mine", 4)
    out = tmp_path / "f.png"
    command = ["figure", "coarse-to-fine", grey, str(tmp_path / "mine"), "--t", "0"]
    assert main([*command, "--pick", "3", "1", "--out", str(out)]) == 0
    assert "(mine, pixel by pixel)" in capsys.readouterr().out
    assert np.array_equal(last_source(out), values[1])
    assert said_of(out)["command"][3:] == ["mine", "--t", "0", "--pick", "3", "1"]


def test_images_of_another_size_are_resized_and_it_is_said(grey, tmp_path, capsys):
    pictures(tmp_path / "large", 2, side=20)
    command = ["figure", "coarse-to-fine", grey, str(tmp_path / "large"), "--t", "0"]
    assert main([*command, "--out", str(tmp_path / "f.png")]) == 0
    said = capsys.readouterr().out
    assert "read as 8x8 squares as in training" in said
    assert "0.png has 20x20 pixels" in said


def test_a_single_image_is_enough_where_one_is_shown(run, tmp_path, capsys):
    pictures(tmp_path / "one", 1)
    image = str(tmp_path / "one" / "0.png")
    out = str(tmp_path / "f.png")
    assert main(["figure", "denoising", run, image, *FEW["denoising"], "--out", out]) == 0
    # The model of digits has 17 grey levels, and noise has all 256.
    assert "in 17 grey levels" in capsys.readouterr().out
    refused(["figure", "interpolation", run, image], capsys, "6 images are needed", "has 1")


def test_a_digit_that_fits_is_kept_exactly(run, tmp_path, capsys):
    levels = torch.arange(64).reshape(8, 8) % 17
    values = np.round(levels.numpy() * 255 / 16).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "digit.png")
    out, image = tmp_path / "f.png", str(tmp_path / "digit.png")
    assert main(["figure", "denoising", run, image, *FEW["denoising"], "--out", str(out)]) == 0
    assert "digit.png, pixel by pixel" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fig7", "RUN"], ["no figure 'fig7'", "shared-latents"]),
        (["samples"], ["needs a run or checkpoint first"]),
        (["samples", "RUN", "digits"], ["shows no images of yours"]),
        (["samples", "RUN", "--t", "3"], ["--t"]),
        (["samples", "RUN", "--out", "f.jpg"], [".png"]),
        (["schedule", "RUN", "--seed", "1"], ["--seed"]),
        (["samples", "RUN", "--guidance", "2"], ["--class"]),
        (["samples", "RUN", "--class", "3"], ["class"]),
        (["classes", "RUN"], ["knows no classes"]),
        (["interpolation", "RUN", "--t", "21"], ["1..20", "21"]),
        (["interpolation", "RUN", "--pick", "1"], ["6 images", "names 1"]),
        (["denoising", "RUN", "--pick", "297"], ["0 to 296", "297"]),
        (["denoising", "RUN", "--pick", "-1"], ["-1"]),
        (["denoising", "RUN", "nowhere"], ["nowhere does not exist"]),
        (["neighbours", "RUN", "--pick", "1"], ["--pick"]),
        (["neighbours", "RUN", "--features", "cifar10"], ["32x32"]),
        (["progressive-quality", "RUN", "--n", "200"], ["400 images are needed", "297"]),
        (["rate-distortion", "RUN", "--sampler", "ddim"], ["--sampler"]),
        (["denoising", "GREY"], ["measure", "digits"]),
    ],
)
def test_mistakes_end_in_a_sentence_and_nothing_is_written(
    run, grey, tmp_path, monkeypatch, capsys, argv, words
):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": run, "GREY": grey}
    argv = [known.get(word, word) for word in argv]
    if argv[-1] == grey:  # its configuration names the digits, which have other grey levels
        words = ["17", "name images behind the model"]
    refused(["figure", *argv], capsys, *words)
    assert everything_below(tmp_path) == {}


def test_a_model_that_does_not_know_its_data_says_what_to_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(["figure", "denoising", "cifar10-small"], capsys, "images", "behind the model")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--t", "5", "--out", "x.png", "--seed", "1"], ["--t", "5", "--seed", "1"]),
        (["--out=x.png", "--n", "3"], ["--n", "3"]),
        (["--n", "3", "--out", "x.png"], ["--n", "3"]),
    ],
)
def test_where_it_was_written_is_no_part_of_a_command(given, kept):
    assert Provenance.of(tiny_model(), "run", given).command == tuple(kept)
