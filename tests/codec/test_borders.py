"""What the codec refuses or bears at its doors: numbers that are none, pairs of options, autocast,
models that cannot be coded, and beginnings of files of several images."""

import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm.cli.decompress
from ddpm.cli import main
from ddpm.cli.about_archive import is_archive
from ddpm.codec.header import Header, Part
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.provenance import read_provenance
from helpers import BRIEFLY, measured_model, tiny_images, tiny_model
from mistakes import refused
from typecheck import unchecked


@pytest.fixture(scope="module")
def model():
    return measured_model()


@pytest.fixture(scope="module")
def images():
    return tiny_images(4, seed=5).images


@pytest.fixture(scope="module")
def data(model, images):
    return model.compress(images)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("only", [[1.5], ["1"], "1", [True], [-1], [4], 2, iter([0.5]), [[1]]])
def test_what_is_no_number_of_an_image_is_refused(model, data, only):
    with unchecked(), pytest.raises(DdpmError, match=r"number|image"):
        model.decompress(data, only=only)


@pytest.mark.parametrize(
    "only", [[1, 2], (1, 2), torch.tensor([1, 2]), np.array([2, 1]), iter([1, 2]), range(1, 3)]
)
def test_numbers_of_images_may_come_in_any_list(model, data, images, only):
    with unchecked():
        found = model.decompress(data, only=only)
    assert (found.numbers, found.exact) == ([1, 2], True)
    assert all(map(torch.equal, found.images, images[1:3]))


@pytest.mark.parametrize("reconstruct", ["smaple", "Sample", None])
def test_an_unknown_completion_is_refused(model, data, reconstruct):
    with (
        unchecked(),
        pytest.raises(DdpmError, match="reconstruct must be one of mean, sample, average"),
    ):
        model.decompress(data[:-3], reconstruct=reconstruct)


@pytest.mark.parametrize(
    "options", [{"steps": 2.5}, {"steps": "3"}, {"last_timestep": 8.5}, {"names": [1, 2, 3, 4]}]
)
def test_what_is_no_number_or_name_is_refused(model, images, options):
    with unchecked(), pytest.raises(DdpmError, match=r"must lie in|names are texts"):
        model.compress(images, **options)


@pytest.mark.parametrize("steps", [-1, 0, 1.5, True])
def test_a_last_stage_is_learned_in_so_many_steps(steps):
    bare = measured_model(coded=False)
    with unchecked(), pytest.raises(DdpmError, match="the number of steps must be"):
        bare.learn_coding(tiny_images(4).images, steps=steps)


@pytest.mark.parametrize("wrong", ["none", "levels"])
def test_a_last_stage_is_learned_from_images_of_the_model(wrong):
    model, images = measured_model(coded=False), tiny_images(4).images
    images = images[:0] if wrong == "none" else torch.full_like(images, 17)
    with pytest.raises(DdpmError, match=r"no images|17"):
        model.learn_coding(images, steps=1)


def test_a_network_that_has_gone_bad_is_named():
    model = tiny_model()
    next(model.network.parameters()).fill_(math.nan)
    with pytest.raises(DdpmError, match="at t = 0 the prediction is not finite"):
        model.measure(tiny_images(4).images)


# -- steps and the end of the path -----------------------------------------------------------------


def test_steps_and_the_end_of_the_path_fit_together_or_are_refused(model, images):
    """All pairs: what is asked for is what the file has."""
    ends, total = sorted(model.coding.ends), model.diffusion.num_timesteps
    made = 0
    for last in range(ends[0], ends[-1] + 1):
        for steps in range(1, total + 1):
            possible = 2 <= steps <= total - last or (steps, last) == (1, total - 1)
            if possible and steps not in (1, 2, total - last):
                continue  # the middle is like its ends
            if not possible:
                with pytest.raises(DdpmError, match=f"steps must lie in .* ends at {last}, got"):
                    model.compress(images[:1], steps=steps, last_timestep=last)
                continue
            route = model.for_codec().route(1, steps, last)
            assert (len(route.timesteps), route.timesteps[-1]) == (steps, last)
            made += 1
    assert made >= 2


# -- other programs --------------------------------------------------------------------------------


def test_autocast_of_the_program_changes_nothing(model, images, data):
    with torch.autocast("cpu", torch.bfloat16):
        assert model.compress(images) == data
        assert model.decompress(data).exact
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


# -- models that cannot be coded -------------------------------------------------------------------


def test_a_model_that_learned_its_variance_is_told_the_truth(tmp_path, capsys):
    model = learned_variance()
    with pytest.raises(DdpmError, match="needs a model with a fixed variance"):
        model.learn_coding(tiny_images(4).images, steps=1)
    model.save(tmp_path / "m.safetensors")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    command = ["compress", tmp_path / "m.safetensors", tmp_path / "a.png", "-o", tmp_path / "x"]
    refused(command, capsys, "fixed variance")
    few = ["--images", "4", "--timesteps", "2", "--data", "digits"]
    assert main(["measure", str(tmp_path / "m.safetensors"), *few]) == 0
    printed = "".join(capsys.readouterr())
    assert "last stage" not in printed
    assert "ddpm compress" not in printed
    refused(command, capsys, "fixed variance")


def learned_variance():
    """A model whose network has the variances too."""
    config = tiny_model().config
    config = replace(config, diffusion=replace(config.diffusion, variance_type="learned_range"))
    model = tiny_model()
    network = config.build_network(model.format.shape).requires_grad_(False)
    return replace(model, config=config, network=network, diffusion=config.diffusion.build())


def test_a_file_that_archives_may_need_is_not_measured_again(tmp_path, capsys, model):
    path = tmp_path / "m.safetensors"
    model.save(path)
    before = path.read_bytes()
    measure = ["measure", str(path), *BRIEFLY, "--images", "4", "--timesteps", "2"]
    refused(measure, capsys, "can compress already", "--out")
    assert path.read_bytes() == before
    assert main([*measure, "--out", str(tmp_path / "n.safetensors")]) == 0
    assert load(tmp_path / "n.safetensors").for_codec().fingerprint


# -- beginnings ------------------------------------------------------------------------------------


def test_of_a_beginning_only_what_the_model_made_up_is_marked(tmp_path, monkeypatch, capsys, model):
    monkeypatch.chdir(tmp_path)
    rows, columns = np.mgrid[:520, :520]
    pixels = ((rows // 37 + columns // 29) % 17 * 255 / 16).round().astype(np.uint8)
    (tmp_path / "in").mkdir()
    for name in "ab":  # two parts
        Image.fromarray(pixels).save(f"in/{name}.png")
    model.save("m.safetensors")
    assert main(["compress", "m.safetensors", "in", "-o", "x.ddpm", "--steps", "2"]) == 0
    command = ["decompress", "m.safetensors", "x.ddpm", "--fraction", "0.9", "-o", "out"]
    capsys.readouterr()
    assert main(command) == 0
    assert "1 of them exact, the rest after 1 step of the last part" in capsys.readouterr().out
    with Image.open("out/a.png") as a, Image.open("out/b.png") as b:
        assert np.array_equal(np.asarray(a), pixels)
        assert not np.array_equal(np.asarray(b), pixels)
        seen = np.asarray(b)
    assert read_provenance(tmp_path / "out/a.png") is None
    assert main(["info", "out/b.png"]) == 0
    again = re.search(r"^ddpm (decompress .*)$|(?<=ddpm )(decompress .*)", capsys.readouterr().out)
    words = shlex.split(again[0].removeprefix("ddpm ").split("\n")[0])
    words[words.index("--out") + 1] = "again.png"
    assert main(words) == 0
    with Image.open("again.png") as picture:
        assert np.array_equal(np.asarray(picture), seen)


def test_what_compress_says_decodes_what_it_made(tmp_path, monkeypatch, capsys):
    """With a guidance of many digits; and where the class is left out, the sentence names it."""
    monkeypatch.chdir(tmp_path)
    model = conditional()
    model.save("m.safetensors")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("a.png")
    given = ["--class", "1", "--guidance", "1.2345678"]
    assert main(["compress", "m.safetensors", "a.png", "-o", "x.ddpm", "--steps", "2", *given]) == 0
    said = re.search(r"ddpm (decompress .*)", capsys.readouterr().out)[1]
    assert "--guidance 1.2345678" in said
    words = [*shlex.split(said.split(" -o ")[0]), "-o", "b.png"]
    assert main(words) == 0
    refused(["decompress", "x.ddpm", "-o", "c.png"], capsys, "--class", "--guidance")
    refused(["decompress", "m.safetensors", "x.ddpm", "-o", "c.png"], capsys, "with the class")


def conditional():
    """A tiny model of three classes, which can compress."""
    model = tiny_model()
    config = replace(model.config, network=replace(model.config.network, classes=3))
    network = config.build_network(model.format.shape).requires_grad_(False)
    model = replace(model, config=config, network=network)
    images = tiny_images(40).images
    model.measure(images)
    model.learn_coding(images, steps=2)
    return model


@pytest.mark.slow
def test_files_of_one_step_are_compared_too(tmp_path, capsys):
    model = measured_model(timesteps=2)
    model.save(tmp_path / "m.safetensors")
    command = ["evaluate", str(tmp_path / "m.safetensors"), "--codec", "--images", "2"]
    data = ["--data", "digits", "--steps", "1", "--out", str(tmp_path)]
    assert main([*command, *data]) == 0
    assert "channel simulation" in capsys.readouterr().out


# -- files that are odd ----------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"\xdd", b"\xdd\x04" + b"a" * 20, b"\xdd\x50", b"\xdd\x02"])
def test_what_begins_as_an_archive_is_none_of_a_checkpoint(tmp_path, capsys, start):
    path = tmp_path / "x.ddpm"
    path.write_bytes(start)
    sentence = refused(["info", path], capsys)
    assert "checkpoint" not in sentence
    assert "compress" in sentence or "the file is cut" in sentence or "first format" in sentence


def test_a_checkpoint_whose_first_byte_is_that_of_an_archive_is_one(tmp_path, capsys, model):
    path = tmp_path / "m.safetensors"
    model.save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    more = (0xDD - size) % 256  # spaces may follow the header
    path.write_bytes(
        (size + more).to_bytes(8, "little") + data[8 : 8 + size] + b" " * more + data[8 + size :]
    )
    assert path.read_bytes()[0] == 0xDD
    assert not is_archive(path)


def test_a_small_file_that_claims_many_images_is_refused_before_any_place_is_made(
    tmp_path, capsys, model, monkeypatch
):
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setattr(ddpm.cli.decompress, "places", lambda *_: pytest.fail("too late"))
    part = Part(2, 0)
    fingerprint = model.for_codec().fingerprint % (1 << 28)
    header = Header(fingerprint, 1 << 22, None, None, None, False, (part,))
    (tmp_path / "x.ddpm").write_bytes(header.pack() + b"ab")
    command = ["decompress", tmp_path / "m.safetensors", tmp_path / "x.ddpm", "-o", tmp_path / "o"]
    refused(command, capsys, "damaged")


def test_who_compresses_what_the_model_does_not_know_is_told(tmp_path, capsys, model):
    model.save(tmp_path / "m.safetensors")
    noise = np.random.default_rng(0).integers(0, 17, (8, 8)) * 255 / 16
    Image.fromarray(noise.round().astype(np.uint8)).save(tmp_path / "a.png")
    command = ["compress", str(tmp_path / "m.safetensors"), str(tmp_path / "a.png"), "-o"]
    assert main([*command, str(tmp_path / "x.ddpm")]) == 0
    size = (tmp_path / "x.ddpm").stat().st_size
    assert size > 33
    assert "the pixels alone have 33 bytes" in capsys.readouterr().out
