"""`ddpm inpaint`: an image, a mask, fillings; and every mistake a sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.cli import main
from ddpm.data.exact_files import write_images
from ddpm.data.images import ImageFormat
from ddpm.latents import inpaint
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import read_provenance
from full_range import one_thread, save_models
from helpers import tiny_config, tiny_images, tiny_model
from mistakes import everything_below, refused

QUICK = ["--steps", "5", "--repeats", "2", "--jump", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Models, images and masks: digits of 17 grey levels, grey, RGB."""
    folder = tmp_path_factory.mktemp("inpaint")
    for channels, path in save_models(folder).items():
        pixels = tiny_images(1, 256, channels).images
        write_images(list(pixels), [folder / f"{path.stem}.png"], ImageFormat(channels, 8, 8))
    tiny_model().save(folder / "digits.safetensors")
    digit = tiny_images(1).images
    write_images(list(digit), [folder / "digits.png"], ImageFormat(1, 8, 8, 17))
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    """A folder with copies of the files, which is the current one."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    with one_thread():
        yield tmp_path


def pixels(path):
    return np.asarray(Image.open(path))


def run(*argv):
    assert main(["inpaint", *map(str, argv)]) == 0


@pytest.mark.parametrize("name", ["digits", "1", "3"])
def test_what_is_black_in_the_mask_is_kept_byte_for_byte(work, name, capsys):
    run(f"{name}.safetensors", f"{name}.png", "mask.png", "-o", "out.png", *QUICK)
    before, after = pixels(f"{name}.png"), pixels("out.png")
    assert after.shape == before.shape
    assert (after[:, :4] == before[:, :4]).all()
    assert (after[:, 4:] != before[:, 4:]).any()
    said = capsys.readouterr().out
    assert "32 of 64 pixels filled in: out.png" in said
    assert ("5 quadratic steps" if name == "digits" else "5 smooth steps") in said
    run(f"{name}.safetensors", "out.png", "mask.png", "-o", "again.png", *QUICK)  # it is readable


def test_several_fillings_are_a_folder_and_the_library_draws_the_same(work):
    options = ["--seed", "3", *QUICK, "--variance", "fixed_large"]
    run("3.safetensors", "3.png", "mask.png", "-o", "out", "-n", 3, *options, "--batch-size", "2")
    model, mask = load("3.safetensors"), torch.from_numpy(pixels("mask.png").copy()) > 127
    image = torch.from_numpy(pixels("3.png").copy()).permute(2, 0, 1)
    plan = Plan(5, variance="fixed_large")
    wanted = inpaint(model, image.expand(3, 3, 8, 8), mask, seed=3, plan=plan, repeats=2, jump=2)
    names = ["000000.png", "000001.png", "000002.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    for name, filled in zip(names, wanted, strict=True):
        assert (pixels(Path("out") / name) == filled.permute(1, 2, 0).numpy()).all()
    run("3.safetensors", "3.png", "mask.png", "-o", "one.png", *options)
    assert (pixels("one.png") == pixels("out/000000.png")).all()


def test_a_grey_counts_as_the_nearer_of_white_and_black_and_that_is_said(work, capsys):
    soft = pixels("mask.png").copy()
    soft[0, 0], soft[0, 7], soft[1, 0] = 127, 128, 1
    Image.fromarray(soft).save("soft.png")
    run("1.safetensors", "1.png", "soft.png", "-o", "soft-out.png", *QUICK)
    said = capsys.readouterr().out
    assert "(3 greys of the mask counted as the nearer of white and black)" in said
    run("1.safetensors", "1.png", "mask.png", "-o", "out.png", *QUICK)
    assert (pixels("out.png") == pixels("soft-out.png")).all()


@pytest.mark.parametrize("kind", ["1", "RGB", "P"])
def test_a_mask_may_be_any_kind_of_picture_without_colours(work, kind):
    Image.open("mask.png").convert(kind).save("other.png")
    run("1.safetensors", "1.png", "other.png", "-o", "other-out.png", *QUICK)
    run("1.safetensors", "1.png", "mask.png", "-o", "out.png", *QUICK)
    assert (pixels("out.png") == pixels("other-out.png")).all()


def test_a_white_mask_makes_a_sample(work):
    Image.new("L", (8, 8), 255).save("white.png")
    run("1.safetensors", "1.png", "white.png", "-o", "a.png", *QUICK)
    Image.new("L", (8, 8), 30).save("other.png")
    run("1.safetensors", "other.png", "white.png", "-o", "b.png", *QUICK)
    assert (pixels("a.png") == pixels("b.png")).all()


@pytest.mark.parametrize("how", [QUICK, ["--repeats", "1"], ["--trajectory", "0", "7", "19"]])
def test_a_filling_says_what_made_it_and_its_command_draws_it_again(work, how):
    run("1.safetensors", "1.png", "mask.png", "-o", "out", "-n", 2, "--seed", 7, *how)
    found = read_provenance(Path("out/000001.png"))
    assert found.index == 1
    assert found.synthetic
    assert found.settings["image"] == "1.png"
    assert main([*found.command, "--out", "again"]) == 0
    for name in ("000000.png", "000001.png"):
        assert (pixels(Path("out") / name) == pixels(Path("again") / name)).all()
    run("1.safetensors", "1.png", "mask.png", "-o", "bare.png", *QUICK, "--no-provenance")
    assert read_provenance(Path("bare.png")) is None


def test_a_chain_of_all_steps_is_drawn_again_as_such(tmp_path, monkeypatch):
    """Though 250 is what a command that says nothing takes."""
    monkeypatch.chdir(tmp_path)
    with one_thread():
        tiny_model(timesteps=260).save("m.safetensors")
        write_images(list(tiny_images(1).images), [Path("i.png")], ImageFormat(1, 8, 8, 17))
        Image.new("L", (8, 8), 255).save("w.png")
        run("m.safetensors", "i.png", "w.png", "-o", "a.png", "--steps", 260, "--repeats", 1)
        command = read_provenance(Path("a.png")).command
        assert command[command.index("--steps") + 1] == "260"
        assert main([*command, "--out", "b.png"]) == 0
    assert (pixels("a.png") == pixels("b.png")).all()


def test_mistakes_are_a_sentence_each_and_leave_nothing_behind(work, capsys):
    Image.new("L", (8, 8), 0).save("black.png")
    Image.new("L", (9, 8), 255).save("wide.png")
    Image.new("L", (16, 16), 255).save("large.png")
    Image.new("RGB", (8, 8), (255, 0, 0)).save("red.png")
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save("clear.png")
    Image.new("I;16", (8, 8), 40_000).save("deep.png")
    Path("text.png").write_text("no picture")
    Path("folder").mkdir()
    Path("taken.png").write_text("mine")
    before = everything_below(work)
    run_, image, mask, out = "1.safetensors", "1.png", "mask.png", ["-o", "out.png"]

    def no(*argv, words):
        refused(["inpaint", *argv], capsys, *words)
        assert everything_below(work) == before

    no(words=["needs a run or checkpoint first"])
    no(run_, words=["needs an image after the run"])
    no(run_, image, words=["needs a mask after the image"])
    no(run_, image, mask, words=["--out"])
    no(run_, image, "black.png", *out, words=["black.png has no white pixel"])
    no(run_, image, "wide.png", *out, words=["wide.png has 9x8 pixels and the image 8x8"])
    no(run_, "large.png", mask, *out, words=["expects images of shape (1, 8, 8), got (1, 16, 16)"])
    no(run_, "large.png", "large.png", *out, words=["expects images of shape (1, 8, 8)"])
    no(run_, image, "red.png", *out, words=["red.png", "colours"])
    no(run_, image, "clear.png", *out, words=["clear.png", "transparency"])
    no(run_, image, "deep.png", *out, words=["deep.png", "16 bits"])
    no(run_, "3.png", mask, *out, words=["3.png", "colours, which this model has not"])
    no("digits.safetensors", image, mask, *out, words=["1.png", "17 grey levels"])
    no(run_, image, "text.png", *out, words=["text.png cannot be read as an image"])
    no(run_, image, "missing.png", *out, words=["missing.png does not exist"])
    no(run_, "folder", mask, *out, words=["folder is a folder; name one image"])
    no(run_, image, mask, "-o", "taken.png", words=["taken.png is there already"])
    no(run_, image, mask, "-o", image, words=["1.png is there already"])
    no(run_, image, mask, "-o", "out.jpg", words=["written as PNG"])
    no(run_, image, mask, "-n", "2", *out, words=["give --out a folder"])
    for option, value in (("-n", 0), ("--seed", -1), ("--repeats", 0), ("--jump", 0)):
        no(run_, image, mask, *out, option, value, words=[option, "must be at least"])
    no(run_, image, mask, *out, "--steps", 21, words=["1..20"])
    no(run_, image, mask, *out, "--steps", 5, "--jump", 5, words=["does not fit into a chain of 5"])
    no(run_, image, mask, *out, "--class", "3", words=["class"])
    no(run_, image, mask, *out, "--guidance", "2", words=["--guidance has no effect"])
    no(run_, image, mask, *out, "--sampler", "ddim", words=["--sampler"])


def test_a_run_that_is_stopped_leaves_no_part_of_an_image(work, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddpm.cli.inpaint.inpaint", stopped)
    before = everything_below(work)
    argv = ["inpaint", "1.safetensors", "1.png", "mask.png", "-o", "out.png", *QUICK]
    assert main(argv) == 130
    assert everything_below(work) == before


def test_a_class_can_be_asked_for(work):
    config = tiny_config()
    config = replace(config, network=replace(config.network, classes=3))
    image_format = ImageFormat(1, 8, 8, 17)
    network = config.build_network(image_format.shape).requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape))
    Ddpm(config, image_format, network).save("classes.safetensors")
    begin = ["classes.safetensors", "digits.png", "mask.png", *QUICK]
    run(*begin, "-o", "none.png")
    run(*begin, "-o", "two.png", "--class", "2", "--guidance", "3")
    assert (pixels("two.png") != pixels("none.png")).any()
    found = read_provenance(Path("two.png"))
    assert (found.settings["class"], found.settings["guidance"]) == (2, 3.0)
    assert main([*found.command, "--out", "again.png"]) == 0
    assert (pixels("two.png") == pixels("again.png")).all()
