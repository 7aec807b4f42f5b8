"""What belongs together: results and their models, archives and their checkpoints, shares and their
images."""

import os

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.data import open_data
from ddpm.data.content import data_facts
from ddpm.runs.folder import RunFolder
from full_range import one_thread
from helpers import checkpoint_path, measured_model, tiny_model
from mistakes import refused

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with a run of a measured model and a picture that it can take."""
    monkeypatch.chdir(tmp_path)
    measured_model().save(checkpoint_path(tmp_path / "run", 3))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("one.png")
    return tmp_path


COMPRESS = ["compress", "run", "one.png", "-o", "x.ddpm", "--steps", "2"]


def test_a_file_decodes_although_the_newest_checkpoint_is_not_measured(place):
    assert main(COMPRESS) == 0
    tiny_model(seed=1).save(checkpoint_path(place / "run", 9))
    assert main(["decompress", "run", "x.ddpm", "-o", "back.png"]) == 0
    with Image.open("back.png") as back:
        assert not np.asarray(back).any()


def test_a_checkpoint_named_from_its_own_folder_is_pinned_all_the_same(place, monkeypatch, capsys):
    monkeypatch.chdir(place / "run" / "checkpoints")
    name = "step-00000003.safetensors"
    assert main(["compress", name, "../../one.png", "-o", "../../x.ddpm", "--steps", "2"]) == 0
    assert [path.name for path in RunFolder(place / "run").pinned()] == [name]
    refused(["measure", name], capsys, "--out")


def test_results_of_two_models_do_not_replace_one_another(place):
    measured_model(seed=1).save("other.safetensors")
    for model in ("run/checkpoints/step-00000003.safetensors", "other.safetensors"):
        assert main(["evaluate", model, "--bpd", "--images", "2", "--out", "e"]) == 0
    assert len(list((place / "e").glob("*.json"))) == 2


def test_a_share_that_was_held_out_is_that_of_the_training_images_alone(place, capsys):
    from dataclasses import replace

    rng = np.random.default_rng(0)
    for folder, count in (("own", 60), ("others", 20)):
        os.makedirs(folder)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(f"{folder}/{i}.png")
    model = tiny_model()
    model.format = replace(model.format, levels=256)
    data = replace(model.config.data, path="own", hold_out=0.25)
    model.config = replace(model.config, data=data)
    train = open_data("own", image_size=8, channels=1, hold_out=0.25)
    model.history = replace(model.history, facts=data_facts(train))
    model.save("model.safetensors")
    evaluate = ["evaluate", "model.safetensors", "--bpd", "--steps", "2", "--out", "e"]
    assert main(evaluate) == 0
    assert f" on {60 - len(train)} images" in capsys.readouterr().out
    os.rename("own", "moved")
    assert main([*evaluate, "--data", "moved"]) == 0
    assert f" on {60 - len(train)} images" in capsys.readouterr().out
    assert main([*evaluate, "--data", "others", "--split", "train"]) == 0
    assert " on 20 images" in capsys.readouterr().out
    refused([*evaluate, "--data", "others"], capsys, "--split train")


def test_a_refused_compress_leaves_no_folder(place, capsys):
    Image.fromarray(np.zeros((8, 8), np.uint16) + 300).save("wide.png")
    refused(["compress", "run", "wide.png", "-o", "new/x.ddpm"], capsys, "16 bits")
    assert not (place / "new").exists()
