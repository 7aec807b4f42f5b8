"""The forms in which sets of images travel, read without asking."""

import io
import json
import logging
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from data.form_makers import (
    SIZE,
    arrays,
    cifar10_members,
    encoded,
    opened,
    train_command,
    write,
    write_lmdb,
    write_members,
    write_mnist,
    write_table,
    write_tar,
    write_zip,
)
from ddpm.cli import main
from ddpm.data import open_data

MEMBERS = {f"faces/{value}.png": encoded(value) for value in (1, 2, 3)}
ITEMS = {b"%d" % value: encoded(value) for value in (1, 2, 3)}


def saved(path, **named):
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if "packed" in path.name else np.savez)(path, **named)
    return path


def saved_npy(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


GREY = {"shape": (8, 8)}
FORMS = {  # each returns a file
    "parquet": lambda p: write_table(p / "own.parquet", list(MEMBERS.values())),
    "zip": lambda p: write_zip(p / "own.zip", MEMBERS),
    "zip, stored": lambda p: write_zip(p / "own.zip", MEMBERS, zipfile.ZIP_STORED),
    "ZIP": lambda p: write_zip(p / "OWN.ZIP", MEMBERS),
    "tar": lambda p: write_tar(p / "own.tar", MEMBERS),
    "tar.gz": lambda p: write_tar(p / "own.tar.gz", MEMBERS),
    "tgz": lambda p: write_tar(p / "own.tgz", MEMBERS),
    "tar with ./": lambda p: write_tar(p / "own.tar", {f"./{k}": v for k, v in MEMBERS.items()}),
    "npz": lambda p: saved(p / "own.npz", images=arrays(1, 2, 3)),
    "npz, compressed": lambda p: saved(p / "packed.npz", images=arrays(1, 2, 3)),
    "npz without names": lambda p: saved(p / "own.npz", arr_0=arrays(1, 2, 3)),
    "npz, one channel": lambda p: saved(p / "own.npz", x=arrays(1, 2, 3, shape=(8, 8, 1))),
    "npz, grey": lambda p: saved(p / "own.npz", x=arrays(1, 2, 3, **GREY)),
    "npz, channels first": lambda p: saved(p / "own.npz", x=arrays(1, 2, 3, shape=(3, 8, 8))),
    "npz of many sizes": lambda p: saved(p / "own.npz", x=arrays(1, 2, 3, shape=(20, 30, 3))),
    "npz beside numbers": lambda p: saved(
        p / "own.npz", images=arrays(1, 2, 3), mean=np.zeros(3), latents=np.zeros((3, 5))
    ),
    "npy": lambda p: saved_npy(p / "own.npy", arrays(1, 2, 3)),
    "npy, grey": lambda p: saved_npy(p / "own.npy", arrays(1, 2, 3, **GREY)),
    "lmdb as one file": lambda p: write_lmdb(p / "faces.lmdb", ITEMS, one_file=True),
    "lmdb as a folder": lambda p: write_lmdb(p / "faces_lmdb", ITEMS),
    "data.mdb": lambda p: write_lmdb(p / "faces", ITEMS) / "data.mdb",
    "idx": lambda p: write_mnist(p, [1, 2, 3], [9]) / "train-images-idx3-ubyte",
    "idx.gz": lambda p: write_mnist(p, [1, 2, 3], [9], ".gz") / "train-images-idx3-ubyte.gz",
    "one picture": lambda p: write(p / "a.png", encoded(1)),
    "one picture, TIF": lambda p: write(p / "a.TIF", encoded(1, "TIFF")),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_this_form_is_read(form, channels, tmp_path):
    found, _ = opened(FORMS[form](tmp_path / "own"), channels=channels)
    assert sorted(found) == ([1] if "picture" in form else [1, 2, 3])


IN_FOLDERS = [(form, "") for form in FORMS if "picture" not in form]
IN_FOLDERS += [(form, "sub") for form, _ in IN_FOLDERS if "mdb" not in form]


@pytest.mark.parametrize(("form", "place"), IN_FOLDERS)
def test_a_folder_of_it_is_read(form, place, tmp_path):
    FORMS[form](tmp_path / "own" / place)
    write(tmp_path / "own" / "README.txt", b"faces")
    assert sorted(opened(tmp_path / "own")[0]) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["parquet", "zip", "npz", "tar.gz", "idx"])
def test_what_lies_below_a_linked_folder_is_found(kind, tmp_path):
    FORMS[kind](tmp_path / "far")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "link").symlink_to(tmp_path / "far")
    assert sorted(opened(tmp_path / "own")[0]) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_in_an_archive_the_rule_of_folders_holds(kind, tmp_path, caplog):
    rest = ["__MACOSX/faces/._1.png", "faces/._2.png", "faces/.DS_Store", "@eaDir/1.png"]
    rest += ["notes.txt", "0001.cls", "a.heic", ".ipynb_checkpoints/1.png"]
    members = {**MEMBERS, "faces/SUB/4.JPG": encoded(4), **{name: encoded(90) for name in rest}}
    path = (write_zip if kind == "zip" else write_tar)(tmp_path / f"own.{kind}", members)
    with caplog.at_level(logging.INFO, logger="ddpm"):
        assert sorted(opened(path)[0]) == [1, 2, 3, 4]
    for word in ("4 images", "left out 7", "2 system", "2 hidden", "1 .heic", "2 other files"):
        assert word in caplog.text


@pytest.mark.parametrize("key", ["length", "num-samples", "num_samples", "__len__", "__keys__"])
@pytest.mark.parametrize("one_file", [True, False], ids=["file", "folder"])
def test_a_key_that_counts_is_no_image(key, one_file, tmp_path, caplog):
    items = {b"%d" % i: encoded(i) for i in range(1, 61)}
    path = write_lmdb(tmp_path / "faces.lmdb", {**items, key.encode(): b"60"}, one_file)
    assert sorted(opened(path)[0]) == list(range(1, 61))
    assert "broken" not in caplog.text


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_of_a_member_that_was_added_again_the_last_counts(kind, tmp_path):
    with tarfile.open(tmp_path / f"own.{kind}", "w:gz" if "gz" in kind else "w") as archive:
        for name, value in (("a.png", 1), ("b.png", 2), ("a.png", 3)):
            facts, data = tarfile.TarInfo(name), encoded(value)
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))
    assert sorted(opened(tmp_path / f"own.{kind}")[0]) == [2, 3]


TRAIN, TEST, GIVEN = arrays(1, 2, 3), arrays(8, 9), np.array([4, 5, 6])
NAMED = {
    "x_train": {"x_train": TRAIN, "y_train": GIVEN, "x_test": TEST, "y_test": GIVEN[:2]},
    "X_train": {"X_train": TRAIN, "y_train": GIVEN, "X_test": TEST, "y_test": GIVEN[:2]},
    "train_images": {
        **{"train_images": TRAIN, "val_images": TEST, "train_labels": GIVEN[:, None]},
        **{"val_labels": GIVEN[:2, None]},
    },
    "trainImages": {"trainImages": TRAIN, "testImages": TEST, "trainLabels": GIVEN},
    "images, labels": {"images": TRAIN, "labels": GIVEN},
    "bytes as labels": {"train_images": TRAIN, "train_labels": GIVEN.astype(np.uint8)},
}


@pytest.mark.parametrize("case", NAMED)
def test_the_names_of_arrays_give_splits_and_labels(case, tmp_path):
    path = saved(tmp_path / "own.npz", **NAMED[case])
    assert opened(path) == ([1, 2, 3], [4, 5, 6])
    if "labels" not in case:
        assert opened(path, split="test")[0] == [8, 9]


def cifar10_archive(path, binary):
    name = f"cifar-10-{'binary' if binary else 'python'}.tar.gz"
    return write_tar(path / name, cifar10_members(binary))


CIFAR10 = {
    "python, its folder": lambda p: write_members(p, cifar10_members()) / "cifar-10-batches-py",
    "python, the folder above": lambda p: write_members(p, cifar10_members()),
    "python, its archive": lambda p: cifar10_archive(p, False),
    "python, the folder of its archive": lambda p: cifar10_archive(p, False).parent,
    "python, both": lambda p: write_members(cifar10_archive(p, False).parent, cifar10_members()),
    "binary, its folder": lambda p: (
        write_members(p, cifar10_members(True)) / "cifar-10-batches-bin"
    ),
    "binary, the folder above": lambda p: write_members(p, cifar10_members(True)),
    "binary, its archive": lambda p: cifar10_archive(p, True),
    "binary, the folder of its archive": lambda p: cifar10_archive(p, True).parent,
}


@pytest.mark.parametrize("case", CIFAR10)
def test_cifar10_is_read_in_each_of_its_forms(case, tmp_path):
    path = CIFAR10[case](tmp_path / "own")
    assert opened(path, 32) == (list(range(1, 11)), [i % 10 for i in range(1, 11)])
    assert opened(path, 32, split="test") == ([21, 22], [1, 2])


MNIST = {
    "plain": [("", "")],
    "compressed": [("", ".gz")],
    "torchvision's MNIST/raw": [("MNIST/raw", "")],
    "torchvision's FashionMNIST/raw": [("FashionMNIST/raw", ".gz")],
    "raw": [("raw", "")],
    "Kaggle's names": [("", "")],
    "both, as torchvision leaves them": [("MNIST/raw", ""), ("MNIST/raw", ".gz")],
}


@pytest.mark.parametrize("size", [28, 8])
@pytest.mark.parametrize("case", MNIST)
def test_mnist_is_read_in_each_of_its_forms(case, size, tmp_path):
    for place, ending in MNIST[case]:
        folder = write_mnist(
            tmp_path / "own" / place, [1, 2, 13], [8, 19], ending.replace(".idx", "")
        )
        for path in list(folder.iterdir()) if ending == ".idx" else []:
            path.rename(folder / path.name.replace("-idx", ".idx"))
    assert opened(tmp_path / "own", size, channels=1) == ([1, 2, 13], [1, 2, 3])
    assert opened(tmp_path / "own", size, 3, split="test") == ([8, 19], [8, 9])


def as_bytes(pixels):
    """Pictures [n, h, w, 3] as PNG."""
    buffers = [io.BytesIO() for _ in pixels]
    for image, buffer in zip(pixels, buffers, strict=True):
        Image.fromarray(image).save(buffer, "PNG")
    return {f"{i}.png": buffer.getvalue() for i, buffer in enumerate(buffers)}


def stored(pixels):
    return {name.encode(): data for name, data in as_bytes(pixels).items()}


EXACT = {
    "parquet": lambda p, x: write_table(p / "a.parquet", list(as_bytes(x).values())),
    "zip": lambda p, x: write_zip(p / "a.zip", as_bytes(x)),
    "tar": lambda p, x: write_tar(p / "a.tar", as_bytes(x)),
    "tgz": lambda p, x: write_tar(p / "a.tgz", as_bytes(x)),
    "lmdb": lambda p, x: write_lmdb(p / "a.lmdb", stored(x), one_file=True),
    "npz": lambda p, x: saved(p / "a.npz", images=x),
    "npz, channels first": lambda p, x: saved(p / "a.npz", images=x.transpose(0, 3, 1, 2)),
    "npy, in Fortran's order": lambda p, x: saved_npy(p / "a.npy", np.asfortranarray(x)),
}


@pytest.mark.parametrize("form", EXACT)
def test_every_pixel_is_in_its_place(form, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    source = open_data(EXACT[form](tmp_path, pixels), **SIZE)
    found = source[torch.arange(5)].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, pixels)


BESIDE = {  # pictures are the set, and this no set beside them
    "metadata.parquet": lambda p: write_table(
        p / "metadata.parquet", ["1.png"], "file_name", False, "string", label=[3]
    ),
    "features.npz": lambda p: saved(p / "features.npz", x=np.zeros((3, 5))),
    "labels.npy": lambda p: saved_npy(p / "labels.npy", np.zeros(3, np.int64)),
    "features.lmdb": lambda p: write_lmdb(p / "features.lmdb", {b"1": b"0.5"}, one_file=True),
    "a picture called idx3": lambda p: write(p / "idx3.png", encoded(3)),
    "data.zip of something else": lambda p: write_zip(p / "data.zip", {"a.txt": b"text"}),
}


@pytest.mark.parametrize("case", BESIDE)
def test_pictures_with_something_else_beside_them_are_the_set(case, tmp_path):
    BESIDE[case](tmp_path)
    write_members(tmp_path, MEMBERS)
    assert set(opened(tmp_path)[0]) == {1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "lmdb as one file"])
def test_a_run_trains_on_such_a_file_and_says_its_count_later(form, tmp_path, capsys):
    path, run = FORMS[form](tmp_path), tmp_path / "run"
    assert main(train_command(path, run)) == 0
    assert "3 images" in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["images"]["count"] == 3
