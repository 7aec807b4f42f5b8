"""What the tests of places begin with, made once."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from full_range import one_thread
from helpers import checkpoint_path, measured_model


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """`run` with a measured model, `one.png` of its grey levels, and `x.ddpm` that holds it."""
    here = tmp_path_factory.mktemp("places") / "kept"
    with one_thread():
        measured_model().save(checkpoint_path(here / "run", 3))
        pixels = np.round(np.random.default_rng(0).integers(0, 17, (8, 8)) * 255 / 16)
        Image.fromarray(pixels.astype(np.uint8)).save(here / "one.png")
        # By a copy of the model: no run is to remember that it was used.
        measured_model().save(here / "model.safetensors")
        files = [str(here / name) for name in ("model.safetensors", "one.png", "x.ddpm")]
        assert main(["compress", files[0], files[1], "-o", files[2], "--steps", "2"]) == 0
    (here / "model.safetensors").unlink()
    return here


@pytest.fixture
def place(kept, tmp_path, monkeypatch):
    """A working folder with a run, an image of the model's grey levels, and its archive."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
