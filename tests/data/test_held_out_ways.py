"""Ways by which held-out images came to be trained on: folders of arrays, second links, odd names,
an error that passes."""

import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data import open_data
from ddpm.data.splits import side
from ddpm.errors import DdpmError


def grey(folder, *values):
    """Flat pictures of 8x8 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / f"{value}.png")
    return folder


def shown(path, split="train", **options):
    """The grey values of the images that are taken."""
    source = open_data(path, split, image_size=8, channels=3, **options)
    return sorted(source[torch.arange(len(source))][:, 0, 0, 0].tolist())


def arrays(path, *values):
    """An .npz of such pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=np.stack([np.full((8, 8, 3), v, np.uint8) for v in values]))


@pytest.mark.parametrize("name", ["a.npz", "b.npz"])
def test_arrays_in_folders_are_held_out_by_their_folders(tmp_path, name):
    arrays(tmp_path / "train" / "a.npz", 1, 2)
    arrays(tmp_path / "test" / name, 7)
    assert shown(tmp_path) == [1, 2]
    assert shown(tmp_path, "test") == [7]


def test_idx_files_in_folders_too(tmp_path):
    for folder, value in (("train", 3), ("val", 9)):
        (tmp_path / folder).mkdir()
        head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (1, 8, 8))
        (tmp_path / folder / "images-idx3-ubyte").write_bytes(head + bytes([value]) * 64)
    with pytest.raises(DdpmError, match="several sets"):
        shown(tmp_path)
    (tmp_path / "val" / "images-idx3-ubyte").rename(tmp_path / "val" / "more-idx3-ubyte")
    assert (shown(tmp_path), shown(tmp_path, "test")) == ([3], [9])


@pytest.mark.parametrize("outside", [False, True])
def test_a_folder_whose_second_name_is_test_is_held_out(tmp_path, outside):
    place = tmp_path / "elsewhere" if outside else tmp_path / "own" / "photos"
    grey(place, 1, 2)
    grey(place / "part3", 8, 9)
    (tmp_path / "own").mkdir(exist_ok=True)
    if outside:
        os.symlink(place, tmp_path / "own" / "images")
    os.symlink(place / "part3", tmp_path / "own" / "test")
    assert shown(tmp_path / "own") == [1, 2]
    assert shown(tmp_path / "own", "test") == [8, 9]


@pytest.mark.parametrize(
    "name",
    [
        *("valset", "devset", "evalset", "testdata", "testimages", "validate", "xtest", "xval"),
        *("X_te", "y_te", "TESTDATA", "tst", "val_images", "validationset"),
    ],
)
def test_compounds_are_held_out(name):
    assert side(name) in ("test", "val")


@pytest.mark.parametrize("name", ["valley", "tests-of-time"[8:], "devil", "evaluator", "te", "xtr"])
def test_and_what_only_looks_so_is_not(name):
    assert side(name) is None


@pytest.mark.parametrize("name", ["xtrain", "X_tr", "traindata", "TrainImages", "training"])
def test_so_it_is_with_training(name):
    assert side(name) == "train"


def test_an_error_that_passes_moves_no_image_to_the_other_side(tmp_path, monkeypatch):
    folder = grey(tmp_path / "own", *range(0, 200, 4))
    from ddpm.data.folder import ImageFiles

    read = ImageFiles.__getitem__

    def fail_once(self, index):
        if index == 7:
            raise DdpmError("cannot read 28.png (Input/output error)")
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "__getitem__", fail_once)
        with pytest.raises(DdpmError, match="Input/output error"):
            shown(folder, hold_out=0.5)
    train, test = shown(folder, hold_out=0.5), shown(folder, "test", hold_out=0.5)
    assert sorted(train + test) == list(range(0, 200, 4))
    for path in folder.iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    assert shown(folder, "test", hold_out=0.5) == test


def test_a_folder_of_vehicles_keeps_all_its_classes(tmp_path, caplog):
    for value, name in enumerate(("bus", "car", "train")):
        grey(tmp_path / name, value)
    with caplog.at_level(logging.INFO, logger="ddpm"):
        assert shown(tmp_path) == [0, 1, 2]
    assert "left out" not in caplog.text


def test_what_is_not_used_of_arrays_is_said(tmp_path, caplog):
    np.savez(
        tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8), extra=np.zeros((2, 8, 8, 3))
    )
    with caplog.at_level(logging.INFO, logger="ddpm"):
        shown(tmp_path / "a.npz")
    assert "2 images; not used: extra" in caplog.text


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch):
    grey(tmp_path, 1, 2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DdpmError, match=r"data\.path"):
        shown("")
