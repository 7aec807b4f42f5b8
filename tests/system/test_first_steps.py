"""A new user's first steps: help that says whose defaults it shows, a preset for own images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.config import Config
from ddpm.runs.folder import RunFolder
from full_range import one_thread
from mistakes import refused


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


# -- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "preset"),
    [
        ([], "digits"),
        (["digits"], "digits"),
        (["cifar10"], "cifar10"),
        (["cifar10-small"], "cifar10-small"),
        (["lsun-church"], "lsun-church"),
        (["images"], "images"),
    ],
)
def test_help_says_whose_defaults_it_shows(capsys, monkeypatch, asked, preset):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end:
        main(["train", *asked, "--help"])
    assert not end.value.code
    words = " ".join(re.sub(r"\(default: .*?\)", "", capsys.readouterr().out).split())
    assert re.search(rf"\b(defaults?|values)\b[^│╭.;]{{0,60}}\b{preset}\b", words)


def test_help_lists_the_preset_for_images_of_ones_own(capsys):
    refused(["train"], capsys, "images", "digits")


# -- the preset `images` -------------------------------------------------------------------------


def pictures(sizes, mode="RGB", seed=0):
    """Noise of these sizes (width, height)."""
    rng = np.random.default_rng(seed)
    depth = {"RGB": (3,), "L": ()}[mode]
    return [Image.fromarray(rng.integers(0, 256, (h, w, *depth), dtype=np.uint8)) for w, h in sizes]


OWN = {  # the sizes of somebody's images, and their colours
    "icons": ([(8, 8)] * 20, "RGB"),
    "CIFAR's size": ([(32, 32)] * 20, "RGB"),
    "squares": ([(64, 64)] * 12, "RGB"),
    "photographs": ([(300, 200)] * 6, "RGB"),
    "upright ones": ([(200, 300)] * 6, "RGB"),
    "of all sizes": ([(40 + 20 * i, 300 - 20 * i) for i in range(12)], "RGB"),
    "of odd sizes": ([(37, 53)] * 8, "RGB"),
    "strips": ([(200, 12)] * 8, "RGB"),
    "grey ones": ([(28, 28)] * 20, "L"),
    "two": ([(32, 32)] * 2, "RGB"),
}


def own(folder, sizes, mode="RGB"):
    """A folder of them."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures(sizes, mode)):
        picture.save(folder / f"{i:03d}.png")
    return folder


def proposed(capsys, caplog, folder, *options):
    """The configuration that is proposed for a folder, and everything that is said."""
    capsys.readouterr()
    caplog.clear()
    assert main(["train", "images", "--data", str(folder), "--dry-run", *options]) == 0
    said = capsys.readouterr()
    document = said.out[said.out.index("{") : said.out.rindex("}") + 1]
    return json.loads(document), said.out.replace(document, "") + said.err + caplog.text


def options_in(said):
    """--group.setting and its values, as they are printed."""
    number = r"(?:\d[\d.e-]*\d|\d|True|False|adam|muon|epsilon|v_prediction)"
    found = re.findall(rf"--([a-z]+\.[a-z-]+)((?:[ =]{number}(?![\w.]))*)", said)
    return {name: values.replace("=", " ").split() for name, values in found}


@pytest.mark.parametrize("name", OWN)
def test_size_network_and_steps_are_proposed_from_the_images(tmp_path, capsys, caplog, name):
    sizes, mode = OWN[name]
    folder = own(tmp_path / "own", sizes, mode)
    config, said = proposed(capsys, caplog, folder)
    side = config["data"]["image_size"]
    assert 8 <= side <= max(min(size) for size in sizes)
    if len({*sizes}) == 1 and sizes[0] in [(8, 8), (32, 32)]:
        assert side == sizes[0][0]
    assert config["data"]["path"] == str(folder)
    assert config["training"]["steps"] >= 1
    assert Config.from_dict({k: v for k, v in config.items() if k != "images"})
    options = options_in(said)
    assert {"data.image-size", "training.steps"} <= options.keys()
    assert any(option.startswith("network.") for option in options)
    for option, values in options.items():
        if not values:  # a switch
            continue
        group, key = option.split(".")
        value = config[group][key.replace("-", "_")]
        assert values == [str(x) for x in (value if isinstance(value, list) else [value])], option
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_the_options_that_are_printed_say_everything(tmp_path, capsys, caplog):
    folder = own(tmp_path / "own", [(40, 64)] * 8)
    config, said = proposed(capsys, caplog, folder)
    again = [x for name, values in options_in(said).items() for x in (f"--{name}", *values)]
    assert proposed(capsys, caplog, folder, *again)[0] == config


def test_what_is_asked_for_is_not_proposed_otherwise(tmp_path, capsys, caplog):
    folder = own(tmp_path / "own", [(64, 64)] * 8)
    asked = ["--data.image-size", "16", "--training.steps", "7", "--network.ch", "32"]
    config, _ = proposed(capsys, caplog, folder, *asked)
    assert config["data"]["image_size"] == 16
    assert config["training"]["steps"] == 7
    assert config["network"]["ch"] == 32


def test_more_and_larger_images_take_no_less(tmp_path, capsys, caplog):
    for name, count, side in (("few", 20, 16), ("many", 5000, 16), ("large", 20, 64)):
        images = np.zeros((count, side, side, 3), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images)
    few, many, large = (
        proposed(capsys, caplog, tmp_path / f"{name}.npz") for name in ("few", "many", "large")
    )
    assert few[0]["training"]["steps"] <= many[0]["training"]["steps"]
    assert few[0]["data"]["image_size"] < large[0]["data"]["image_size"]
    counts = [
        int(re.search(r"([\d,]+) parameters", x[1])[1].replace(",", "")) for x in (few, large)
    ]
    assert counts[0] <= counts[1]


NONE = {  # and words of the answer
    "no path": (lambda p: [], ["--data"]),
    "nothing there": (lambda p: ["--data", p / "nowhere", "--dry-run"], ["nowhere"]),
    "an empty folder": (lambda p: ["--data", (p / "empty").mkdir() or p / "empty"], ["empty"]),
    "no images": (lambda p: ["--data", (p / "a.txt").write_text("a") and p, "--dry-run"], []),
    "a size of nothing": (
        lambda p: ["--data", own(p / "own", [(8, 8)]), "--data.image-size", "0", "--dry-run"],
        ["image_size", "0"],
    ),
}


@pytest.mark.parametrize("name", NONE)
def test_without_images_nothing_is_proposed(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make, words = NONE[name]
    refused(["train", "images", *make(tmp_path)], capsys, *words)
    assert not (tmp_path / "runs").exists()


def test_what_was_proposed_can_be_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "own", [(8, 8)] * 12)
    small = ["--training.steps", "2", "--training.batch-size", "2", "--diffusion.timesteps", "4"]
    assert main(["train", "images", "--data", "own", *small]) == 0
    assert RunFolder(Path("runs/images")).checkpoints()
    assert main(["train", "--resume", "runs/images", "--training.steps", "3"]) == 0
