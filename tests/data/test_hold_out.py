"""A part of a set that is held out by the content of its images."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.form_makers import (
    SIZE,
    arrays,
    cifar10_members,
    encoded,
    idx,
    noise,
    values,
    write,
    write_lmdb,
    write_members,
    write_mnist,
    write_pictures,
    write_table,
    write_tar,
    write_zip,
)
from ddpm.data import open_data
from ddpm.errors import DdpmError

pytestmark = pytest.mark.slow  # many members


def side(path, split="test", size=8, channels=3, hold_out=0.25):
    """The images of a split as bytes, in order."""
    source = open_data(path, split, image_size=size, channels=channels, hold_out=hold_out)
    return [image.numpy().tobytes() for image in source[torch.arange(len(source))]]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
def test_a_share_is_held_out_and_the_rest_is_trained_on(share, tmp_path):
    noise(tmp_path, 200)
    train, held_out = (side(tmp_path, split, hold_out=share) for split in ("train", "test"))
    spread = 4 * (200 * share * (1 - share)) ** 0.5
    assert abs(len(held_out) - 200 * share) < spread
    assert len(train) + len(held_out) == len({*train, *held_out}) == 200


def test_every_image_is_trained_on_when_nothing_is_asked(tmp_path):
    noise(tmp_path)
    assert len(side(tmp_path, "train", hold_out=0.0)) == 60


def renamed(folder):
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{997 * i % 1000}-x.png")
    return folder


def moved(folder):
    for i, path in enumerate(sorted(folder.iterdir())):
        (folder / f"{i % 7}").mkdir(exist_ok=True)
        path.rename(folder / f"{i % 7}" / path.name)
    return folder


def with_metadata(folder):
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()
        image.save(path, dpi=(300, 300), compress_level=1)
    return folder


def members(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def as_array(folder):
    images = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    np.savez(folder / "own.npz", images=np.stack(images))
    return folder / "own.npz"


def as_database(folder):
    items = {name.encode(): data for name, data in members(folder).items()}
    return write_lmdb(folder / "own.lmdb", items)


def save_npz(path, **named):
    np.savez(path, **named)
    return path


def write_idx(folder, images, labels):
    write(folder / "images-idx3-ubyte", idx(images))
    write(folder / "labels-idx1-ubyte", idx(labels))
    return folder


SAME = {
    "renamed": renamed,
    "moved into folders": moved,
    "as bmp": lambda p: noise(p / "x", kind="bmp"),
    "as tif": lambda p: noise(p / "x", kind="tif"),
    "as webp": lambda p: noise(p / "x", kind="webp"),
    "as ppm": lambda p: noise(p / "x", kind="ppm"),
    "with other metadata": with_metadata,
    "as zip": lambda p: write_zip(p / "own.zip", members(p)),
    "as tar": lambda p: write_tar(p / "own.tar.gz", members(p)),
    "as parquet": lambda p: write_table(p / "own.parquet", list(members(p).values())),
    "as npz": as_array,
    "as lmdb": as_database,
}


def test_the_same_images_are_held_out_of_a_set_too_large_for_memory(tmp_path, monkeypatch):
    folder = noise(tmp_path)
    parts = [side(folder, split) for split in ("train", "test")]
    monkeypatch.setattr("ddpm.data.streamed.fits_in_memory", lambda *_: False)
    assert [side(folder, split) for split in ("train", "test")] == parts


GREY = range(1, 61)
LABELLED = {  # the label of each is its grey value
    "parquet": lambda p: write_table(p / "a.parquet", list(map(encoded, GREY)), label=GREY),
    "npz": lambda p: save_npz(p / "a.npz", images=arrays(*GREY), labels=np.array(GREY)),
    "idx": lambda p: write_idx(p, arrays(*GREY, shape=(8, 8)), GREY),
}


@pytest.mark.parametrize("form", LABELLED)
def test_labels_go_with_their_images(form, tmp_path):
    path = LABELLED[form](tmp_path)
    for split in ("train", "test"):
        source = open_data(path, split, hold_out=0.3, **SIZE)
        assert source.labels.tolist() == values(source)


@pytest.mark.parametrize("case", SAME)
def test_the_same_images_are_held_out_whatever_they_lie_in(case, tmp_path):
    folder = noise(tmp_path / "own")
    before = side(folder)
    assert 5 < len(before) < 30
    assert sorted(side(SAME[case](folder))) == sorted(before)


def test_an_image_stays_on_its_side_when_others_come_and_go(tmp_path):
    folder = noise(tmp_path / "own")
    train, held_out = (set(side(folder, split)) for split in ("train", "test"))
    noise(folder / "more", seed=1)
    assert train < set(side(folder, "train"))
    assert held_out < set(side(folder))
    for path in sorted(folder.glob("0-*"))[::2]:
        path.unlink()
    assert not train.intersection(side(folder))
    assert not held_out.intersection(side(folder, "train"))


@pytest.mark.parametrize("changes", [{"size": 4}, {"size": 16}, {"channels": 1}])
def test_the_size_and_colours_that_are_asked_for_change_no_side(changes, tmp_path):
    folder = noise(tmp_path / "own")

    def places(**options):
        order = side(folder, "train", hold_out=0.0, **options)
        return [order.index(image) for image in side(folder, **options)]

    assert places(**changes) == places()


def test_copies_of_an_image_fall_on_one_side(tmp_path):
    folder = noise(tmp_path / "own")
    noise(folder / "copies" / "again", kind="bmp")
    assert len(side(folder)) == 2 * len(set(side(folder)))
    assert not set(side(folder)).intersection(side(folder, "train"))


def own_test(path):
    write_pictures(path, ["a.png", "test/b.png"])
    return path


def own_rows(path):
    for name in ("train-0", "val-0"):
        write_table(path / f"{name}.parquet", [encoded(1), encoded(2)])
    return path


def own_arrays(path):
    path.mkdir()
    np.savez(path / "own.npz", x_train=arrays(1, 2), x_test=arrays(3))
    return path / "own.npz"


HAVE_THEIR_OWN = {
    "a folder": own_test,
    "Parquet files": own_rows,
    "an npz": own_arrays,
    "MNIST": lambda p: write_mnist(p, [1, 2], [3]),
    "CIFAR-10": lambda p: write_members(p, cifar10_members()),
    "digits": lambda p: "digits",
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("case", HAVE_THEIR_OWN)
def test_a_set_with_held_out_images_of_its_own_refuses_to_hold_out_more(case, split, tmp_path):
    size, channels = {"CIFAR-10": (32, 3), "MNIST": (28, 1), "digits": (8, 1)}.get(case, (8, 3))
    path = HAVE_THEIR_OWN[case](tmp_path / "own")
    with pytest.raises(DdpmError, match=r"hold.out"):
        open_data(path, split, image_size=size, channels=channels, hold_out=0.1)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, 100.0, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share, tmp_path):
    noise(tmp_path, 5)
    with pytest.raises(DdpmError, match=r"hold.out"):
        open_data(tmp_path, hold_out=share, **SIZE)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("n", "share"), [(1, 0.5), (3, 1e-9), (3, 1 - 1e-9)])
def test_a_share_that_leaves_a_side_empty_is_refused(n, share, split, tmp_path):
    noise(tmp_path, n)
    with pytest.raises(DdpmError, match=r"hold.out"):
        open_data(tmp_path, split, hold_out=share, **SIZE)


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "parquet", "npz", "lmdb"])
def test_a_set_without_held_out_images_says_how_to_hold_out_some(form, tmp_path):
    folder = noise(tmp_path / "own", 4)
    path = folder if form == "folder" else SAME[f"as {form}"](folder)
    with pytest.raises(DdpmError, match=r"data\.hold_out"):
        open_data(path, "test", **SIZE)
