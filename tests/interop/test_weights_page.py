"""Every command of docs/weights.md, on a small model that stands in for google's."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddpm
from ddpm.cli import main
from interop.google_forms import SMALL, random_unet, write_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
COMMANDS = re.search(r"```sh\n(.*?)```", PAGE, re.S)[1].splitlines()
FORM = SMALL | {"sample_size": 32}
# What makes the stand-in's network of the preset's, and a training of two steps.
AS_SMALL = [
    *("--network.ch", "8", "--network.ch-mult", "1", "2", "--network.num-res-blocks", "1"),
    *("--network.norm-groups", "4", "--training.steps", "2", "--training.batch-size", "2"),
    *("--training.sample-every", "0"),
]


def pictures(folder, count, seed):
    """Random colour pictures, one file each."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with images, and a cache of the hub with a small google/ddpm-cifar10-32."""
    monkeypatch.chdir(tmp_path)
    pictures(Path("cifar10/train"), 8, 0)
    pictures(Path("cifar10/test"), 32, 1)
    pictures(Path("pictures"), 2, 2)
    cache = tmp_path / "hub" / "models--google--ddpm-cifar10-32"
    write_pipeline(cache / "snapshots" / "0123abc", random_unet(FORM), FORM, flat=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123abc")
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.slow
def test_every_command_of_the_page_works(place, capsys):
    assert len(COMMANDS) == 10
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "ddpm"
        more = AS_SMALL if words[1] == "train" else []
        if words[1] == "evaluate":
            more = ["--images", "2", "--steps", "4"]
        if words[1] == "figure":
            more = ["--steps", "20"]
        if words[1] == "measure":
            more = ["--images", "4", "--timesteps", "6", "--last-stage-steps", "3"]
        assert main([*words[1:], *more]) == 0, command
        capsys.readouterr()
    originals = sorted(Path("pictures").iterdir())
    for before, after in zip(originals, sorted(Path("back").glob("*.png")), strict=True):
        assert np.array_equal(np.asarray(Image.open(before)), np.asarray(Image.open(after)))
    model, again = ddpm.load("runs/google", "cpu"), ddpm.load("runs/again", "cpu")
    assert model.history.origin == "google/ddpm-cifar10-32"
    assert model.config.network == again.config.network
    assert model.config.diffusion == again.config.diffusion
