"""Folders of images: what is found, what is broken, how they are split."""

import logging

import numpy as np
import pytest
from PIL import Image

from ddpm.data import MemoryImages, open_data
from ddpm.data.folder import image_folder
from ddpm.data.streamed import StreamedImages
from ddpm.errors import DdpmError


def write_images(folder, n, side=4):
    """`n` PNGs whose pixels all hold the image's number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (side, side), (i, i, i)).save(folder / f"{i:03d}.png")


def test_images_are_found_at_any_depth_in_every_format(tmp_path):
    places = ["a.png", "b/c.jpg", "b/d/e.JPEG", "b/d/f/g.webp", "b/d/f/h/i.bmp"]
    for i, place in enumerate(places):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if place.endswith("webp") else {}
        Image.new("RGB", (6, 6), (50 * i,) * 3).save(path, **options)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    data = image_folder(tmp_path, 6, 3)
    assert data.images.shape == (5, 3, 6, 6)
    assert data.images[:, 0, 0, 0].tolist() == [0, 50, 100, 150, 200]


def test_a_broken_file_is_named_counted_and_skipped(tmp_path, caplog):
    write_images(tmp_path, 100)
    (tmp_path / "050.png").write_bytes(b"not an image at all")
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        data = image_folder(tmp_path, 4, 3)
    assert len(data) == 99
    assert data.images[:, 0, 0, 0].tolist() == [i for i in range(100) if i != 50]
    assert "050.png" in caplog.text
    assert "skipped 1 of 100 images" in caplog.text


@pytest.mark.parametrize("limit", [2**30, 0])
def test_more_than_one_percent_broken_is_refused(tmp_path, limit):
    write_images(tmp_path, 100)
    for name in ("007.png", "093.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DdpmError, match=r"2 of 100 images cannot be read, first .*007\.png"):
        image_folder(tmp_path, 4, 3, memory_limit=limit)


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow may warn of damage besides
def test_damage_of_any_kind_counts_as_broken(tmp_path):
    """Truncations and flipped bytes at many places of every format end in a DdpmError or a picture.

    Whatever Pillow raises inside must not get out.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    good = Image.fromarray(pixels)
    rng = np.random.default_rng(1)
    outcomes = set()
    for suffix in ("png", "jpg", "webp", "bmp"):
        exif = {} if suffix == "bmp" else {"exif": good.getexif()}
        path = tmp_path / suffix / f"a.{suffix}"
        path.parent.mkdir()
        good.save(path, **exif)
        data = path.read_bytes()
        for _ in range(40):
            cut = bytearray(data[: rng.integers(0, len(data))])
            flipped = bytearray(data)
            for place in rng.integers(0, min(len(data), 200), 3):
                flipped[place] ^= int(rng.integers(1, 256))
            for damaged in (cut, flipped):
                path.write_bytes(damaged)
                try:
                    assert image_folder(path.parent, 4, 3).format.shape == (3, 4, 4)
                    outcomes.add("read")
                except DdpmError:
                    outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("limit", [2**30, 0])
def test_a_folder_without_images_is_refused(tmp_path, limit):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DdpmError, match="holds no images"):
        image_folder(tmp_path, 4, 3, memory_limit=limit)


def test_a_small_folder_is_held_in_memory_and_a_big_one_streamed(tmp_path):
    write_images(tmp_path, 3)
    pixels = 3 * 4 * 4 * 3
    assert isinstance(image_folder(tmp_path, 4, 3, memory_limit=pixels), MemoryImages)
    assert isinstance(image_folder(tmp_path, 4, 3, memory_limit=pixels - 1), StreamedImages)


def test_train_and_test_subfolders_are_the_splits(tmp_path):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 2)
    assert len(open_data(tmp_path, image_size=4)) == 3
    assert len(open_data(str(tmp_path), "test", image_size=4)) == 2


def test_a_folder_without_splits_is_all_for_training(tmp_path):
    write_images(tmp_path / "cats", 2)
    write_images(tmp_path / "dogs", 3)
    assert len(open_data(tmp_path, image_size=4)) == 5
    with pytest.raises(DdpmError, match="no held-out images"):
        open_data(tmp_path, "test", image_size=4)


def test_no_path_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(DdpmError, match=r"set data\.path"):
        open_data(None)
    with pytest.raises(DdpmError, match="does not exist"):
        open_data(tmp_path / "nowhere")


def test_a_file_that_is_no_data_set_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DdpmError, match="an archive that is damaged"):
        open_data(path)


def test_the_digits_are_opened_by_name_and_only_at_their_own_size():
    train, test = (
        open_data("digits", split, image_size=8, channels=1) for split in ("train", "test")
    )
    assert (len(train), len(test)) == (1500, 297)
    with pytest.raises(DdpmError, match="8x8 and grey"):
        open_data("digits")
