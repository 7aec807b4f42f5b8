"""What is held out never trains, under whatever usual name and in whatever form it stands."""

import logging
import os

import numpy as np
import pytest

from data.form_makers import (
    SIZE,
    arrays,
    encoded,
    taken,
    values,
    write_lmdb,
    write_pictures,
    write_table,
    write_tar,
    write_zip,
)
from ddpm.data import open_data
from ddpm.errors import DdpmError

HELD_OUT = [
    *("test", "Test", "TEST", "tests", "testing", "Testing", "testset", "test_set"),
    *("test-images", "TestImages", "testA", "test1", "imagesTest", "2019-test"),
    *("my.test.images", "val", "Val", "VAL", "valid", "Valid", "validation", "Validation"),
    *("val2017", "DIV2K_valid_HR", "valA", "dev", "Dev", "dev-clean", "eval", "Eval"),
    *("evaluation", "holdout", "HoldOut", "heldout", "held_out", "Held-Out", "hold-out"),
    *("t10k", "t10k-images"),
]
NOT_HELD_OUT = [
    *("latest", "contest", "protest", "testimony", "attestation", "Testament"),
    *("development", "devices", "valley", "values", "invalid", "validated", "evaluator"),
    *("evaluated", "medieval", "householdout", "outheld", "untested", "testosterone"),
    *("art10k", "dataset10k"),
]

# Images to train on; images held out; images that are neither. "%" is a space; "~" marks those for
# validation where there are others to test on: they are measured on no more than trained on.
LAYOUTS = {
    "Train beside Test": ("Train/a Train/b", "Test/c", ""),
    "TRAIN beside VAL": ("TRAIN/a", "VAL/b", ""),
    "sub/train beside sub/test": ("sub/train/a sub/train/b", "sub/test/c", ""),
    "splits below each class": ("cat/train/a dog/train/b", "cat/test/c ~dog/val/d", ""),
    "classes below each split": ("train/cat/a train/dog/b", "val/cat/c val/dog/d", ""),
    "splits three folders down": ("v1/data/train/a", "v1/data/test/b", ""),
    "val beside loose images": ("a b", "val/c", ""),
    "test beside classes": ("cats/a dogs/b", "test/c", ""),
    "train, val and test": ("train/a", "~val/b test/c", ""),
    "train2017 beside val2017": ("train2017/a", "val2017/b", ""),
    "trainA, trainB, testA, testB": ("trainA/a trainB/b", "testA/c testB/d", ""),
    "DIV2K's names": ("DIV2K_train_HR/a", "DIV2K_valid_HR/b", ""),
    "training beside testing": ("training/a", "testing/b", ""),
    "trainset beside testset": ("trainset/a", "testset/b", ""),
    "trainval beside test": ("trainval/a", "test/b", ""),
    "train below test": ("a", "test/train/b", ""),
    "test below train": ("train/a", "train/test/b ~train/x/val/c", ""),
    "a folder of two words": ("train%images/a", "held%out%images/b", ""),
    "extra beside train and test": ("train/a", "test/b", "extra/c"),
    "loose images beside train and test": ("train/a train/b", "test/c", "d e"),
    "files train_ beside test_": ("train_0001 train_0002", "test_0001 ~val_0002", ""),
    "files Train1 beside Test1": ("Train1 Train2", "Test1", ""),
    "files train- beside dev- below": ("x/train-1", "x/dev-1 y/heldout-2", ""),
    "files that are called test alone": ("test_tube eval test val-1 a", "", ""),
    "files called after a test inside": ("cat-test dog-val", "", ""),
    "files called test below train": ("train/test_1 train/cat", "test/cat", ""),
}


def names(text):
    """The files of a line of the table."""
    return [f"{name.replace('%', ' ')}.png" for name in text.split()]


def check_sides(path, colours, train, held_out):
    """Which pictures are in each split."""
    assert taken(open_data(path, **SIZE), colours) == sorted(train)
    assert taken(open_data(path, "test", **SIZE), colours) == sorted(held_out)


@pytest.mark.parametrize("name", [*HELD_OUT, "held out"])
def test_a_folder_of_this_name_beside_loose_images_is_held_out(name, tmp_path):
    colours = write_pictures(tmp_path, ["a.png", "b.png", f"{name}/c.png"])
    check_sides(tmp_path, colours, ["a.png", "b.png"], [f"{name}/c.png"])


@pytest.mark.parametrize("name", NOT_HELD_OUT)
def test_a_folder_of_this_name_is_trained_on(name, tmp_path):
    colours = write_pictures(tmp_path, ["a.png", f"{name}/b.png", f"x/{name}/y/c.png"])
    assert len(taken(open_data(tmp_path, **SIZE), colours)) == 3


@pytest.mark.parametrize("case", LAYOUTS)
def test_what_a_folder_holds_out(case, tmp_path):
    train, held_out, neither = (names(text.replace("~", "")) for text in LAYOUTS[case])
    spare = names(" ".join(name[1:] for name in LAYOUTS[case][1].split() if name[0] == "~"))
    colours = write_pictures(tmp_path / "own", [*train, *held_out, *neither])
    assert taken(open_data(tmp_path / "own", **SIZE), colours) == sorted(train)
    if held_out:
        measured = sorted(name for name in held_out if name not in spare)
        assert taken(open_data(tmp_path / "own", "test", **SIZE), colours) == measured


SAID = [
    "val beside loose images",
    "train, val and test",
    "loose images beside train and test",
    "train below test",
]


@pytest.mark.parametrize("case", SAID)
def test_the_line_says_how_many_are_held_out_and_how_many_are_neither(case, tmp_path, caplog):
    train, held_out, neither = (names(text.replace("~", "")) for text in LAYOUTS[case])
    write_pictures(tmp_path / "own", [*train, *held_out, *neither])
    with caplog.at_level(logging.INFO, logger="ddpm"):
        open_data(tmp_path / "own", **SIZE)
    assert f"own: {len(train)} image" in caplog.text
    assert f"held out {len(held_out)}" in caplog.text
    assert ("outside train and test" in caplog.text) == bool(neither)
    assert not neither or f"{len(neither)} outside train and test" in caplog.text


LINKS = {  # from, to
    "an image of test below train": ("train/z.png", "test/c.png"),
    "an image of test beside the others": ("z.png", "test/c.png"),
    "the folder test under another name": ("train/more", "test"),
    "a folder in test": ("train/more", "test/sub"),
    "by way of another link": ("train/more", "latest"),
}


@pytest.mark.parametrize("case", LINKS)
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_link_to_what_is_held_out_is_held_out(case, absolute, tmp_path):
    colours = write_pictures(tmp_path, ["train/a.png", "test/c.png", "test/sub/d.png"])
    (tmp_path / "latest").symlink_to("test")
    link, target = (tmp_path / place for place in LINKS[case])
    link.symlink_to(target if absolute else os.path.relpath(target, link.parent))
    assert taken(open_data(tmp_path, **SIZE), colours) == ["train/a.png"]
    held_out = open_data(tmp_path, "test", **SIZE)
    assert taken(held_out, colours) == ["test/c.png", "test/sub/d.png"]


def test_a_link_called_test_to_images_elsewhere_is_held_out(tmp_path):
    colours = write_pictures(tmp_path, ["own/a.png", "elsewhere/b.png"])
    (tmp_path / "own" / "test").symlink_to(tmp_path / "elsewhere")
    assert taken(open_data(tmp_path / "own", **SIZE), colours) == ["own/a.png"]
    assert taken(open_data(tmp_path / "own", "test", **SIZE), colours) == ["elsewhere/b.png"]


@pytest.mark.parametrize("place", ["test", "val2017", "x/held_out", "test/", "test/../test", "."])
def test_the_path_that_a_user_names_is_trained_on(place, tmp_path, monkeypatch):
    folder = tmp_path / "test" / "own"
    colours = write_pictures(folder / place, ["a.png", "b/c.png"])
    monkeypatch.chdir(folder)
    assert len(taken(open_data(place, **SIZE), colours)) == 2
    assert len(taken(open_data(folder / place, **SIZE), colours)) == 2


@pytest.mark.parametrize("place", ["test", "val/cats", "sub/dev"])
def test_a_folder_whose_images_are_all_held_out_says_so(place, tmp_path):
    write_pictures(tmp_path / "own" / place, ["a.png", "b.png"])
    with pytest.raises(DdpmError, match=r"held out") as error:
        open_data(tmp_path / "own", **SIZE)
    assert place.split("/")[0] in str(error.value)
    assert len(open_data(tmp_path / "own", "test", **SIZE)) == 2


def fill(form, folder, sides):
    """A data set of two sides, [(place, values), ...], each place a file or in one file."""
    for place, grey in sides:
        cells = {f"{place}/{value}.png": encoded(value) for value in grey}
        if form == "parquet":
            write_table(folder / f"{place}.parquet", list(cells.values()))
        elif form in ("zip files", "tar files"):
            writer, ending = (write_zip, "zip") if form == "zip files" else (write_tar, "tar")
            members = {name.rpartition("/")[2]: data for name, data in cells.items()}
            writer(folder / f"{place}.{ending}", members)
        elif form in ("lmdb", "lmdb files"):
            items = {b"%04d" % i: data for i, data in enumerate(cells.values())}
            write_lmdb(folder / place, items, one_file=form == "lmdb files")
        elif form == "npz files":
            folder.mkdir(exist_ok=True)
            np.savez(folder / f"{place}.npz", images=arrays(*grey))
    everything = {f"{p}/{v}.png": encoded(v) for p, grey in sides for v in grey}
    if form in ("zip", "tar", "tar.gz", "tgz"):
        return (write_zip if form == "zip" else write_tar)(folder / f"own.{form}", everything)
    if form == "npz":
        folder.mkdir(exist_ok=True)
        np.savez(folder / "own.npz", **{place: arrays(*grey) for place, grey in sides})
        return folder / "own.npz"
    return folder


FORMS = [
    ("parquet", "train-00000-of-00001", "test-00000-of-00001"),
    ("parquet", "train-0", "val-0"),
    ("parquet", "train-0", "dev-0"),
    ("parquet", "Train-0", "Validation-0"),
    ("parquet", "faces", "eval-0"),
    ("parquet", "0000", "holdout"),
    ("parquet", "data/train-0", "data/valid-0"),
    ("parquet", "default/train/0000", "default/test/0000"),
    ("parquet", "default/0000", "default/partial-test/0000"),
    ("zip", "train", "test"),
    ("zip", "own/cats", "own/Val"),
    ("zip files", "train", "test"),
    ("zip files", "train2017", "val2017"),
    ("tar", "train", "valid"),
    ("tar.gz", "own/a", "own/testA"),
    ("tgz", "./train", "./dev"),
    ("tar files", "train", "test"),
    ("npz", "x_train", "x_test"),
    ("npz", "train_images", "val_images"),
    ("npz files", "train", "test"),
    ("lmdb", "church_train_lmdb", "church_val_lmdb"),
    ("lmdb", "train.lmdb", "test.lmdb"),
    ("lmdb files", "train.lmdb", "val.lmdb"),
]


@pytest.mark.parametrize(("form", "train", "held_out"), FORMS)
def test_other_forms_hold_out_by_the_names_in_them(form, train, held_out, tmp_path):
    path = fill(form, tmp_path / "own", [(train, [1, 2, 3]), (held_out, [8, 9])])
    assert sorted(values(open_data(path, **SIZE))) == [1, 2, 3]
    assert sorted(values(open_data(path, "test", **SIZE))) == [8, 9]


def test_a_zip_that_was_made_on_windows_holds_out_by_its_folders(tmp_path):
    members = {f"own\\{name}.png": encoded(i) for i, name in enumerate(("a", "test\\b"))}
    path = write_zip(tmp_path / "own.zip", members)
    assert values(open_data(path, **SIZE)) == [0]
    assert values(open_data(path, "test", **SIZE)) == [1]
