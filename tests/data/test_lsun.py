"""LSUN's LMDB folders: keys, formats, splits, damage, and the list of keys that is kept."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from data.sets import encode, flat, key, write_database
from ddpm.data import lsun, open_data
from ddpm.data.lsun import LmdbImages, lmdb_images
from ddpm.errors import DdpmError


def open_path(path, split="train", size=4):
    """The RGB images of a path."""
    return open_data(path, split, image_size=size)


def values(data):
    """The grey value of each image."""
    return data[torch.arange(len(data))][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_wide_and_high_images_in_lsuns_formats_are_cropped_to_the_middle(tmp_path, kind):
    # The middle 16 of 22 columns (or rows) are white; LSUN has a shorter side of 256.
    pixels = np.zeros((16, 22, 3), np.uint8)
    pixels[:, 3:19] = 255
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    stored = [encode(p, kind, **options) for p in (pixels, pixels.transpose(1, 0, 2))]
    data = open_path(write_database(tmp_path / "bedroom_train_lmdb", stored), size=16)
    assert data.images.shape == (2, 3, 16, 16)
    assert data.images.float().mean() > (254 if kind == "WEBP" else 245)


def test_the_order_is_that_of_the_sorted_keys_whatever_was_written_first(tmp_path):
    keys = [key(i) for i in range(50)]
    assert keys != sorted(keys)
    folder = write_database(tmp_path / "a_train_lmdb", [flat(i) for i in range(50)], keys)
    assert values(open_path(folder)) == [keys.index(k) for k in sorted(keys)]


def test_keys_of_any_length_are_kept_whole(tmp_path):
    keys = [b"a", b"a\0", b"b" * 500, b"\xff\0\0"]
    folder = write_database(tmp_path / "d", [flat(i) for i in range(4)], keys)
    assert values(lmdb_images(folder, 4, 3, memory_limit=0)) == [0, 1, 2, 3]


def test_train_and_val_databases_are_the_splits(tmp_path):
    write_database(tmp_path / "church_outdoor_train_lmdb", [flat(1), flat(2)])
    write_database(tmp_path / "church_outdoor_val_lmdb", [flat(9)])
    assert values(open_path(tmp_path)) == [1, 2]
    assert values(open_path(tmp_path, "test")) == [9]
    assert values(open_path(tmp_path / "church_outdoor_val_lmdb")) == [9]
    assert open_path(tmp_path).name == "church_outdoor_train_lmdb"


def test_a_missing_split_is_a_sentence(tmp_path):
    folder = write_database(tmp_path / "cat_train_lmdb", [flat(1)])
    with pytest.raises(DdpmError, match=r"has no held-out images"):
        open_path(tmp_path, "test")
    with pytest.raises(DdpmError, match="no held-out images"):
        open_path(folder, "test")


def test_of_several_categories_none_is_chosen_silently(tmp_path):
    for name in ("bedroom_train_lmdb", "tower_train_lmdb", "tower_val_lmdb"):
        write_database(tmp_path / name, [flat(1)])
    with pytest.raises(DdpmError, match="bedroom_train_lmdb, tower_train_lmdb; name one of them"):
        open_path(tmp_path)
    assert values(open_path(tmp_path / "tower_train_lmdb")) == [1]


def test_an_empty_database_is_refused(tmp_path):
    with pytest.raises(DdpmError, match="e_train_lmdb holds no images"):
        open_path(write_database(tmp_path / "e_train_lmdb", []))


@pytest.mark.slow
def test_a_truncated_database_is_a_sentence_and_not_a_crash(tmp_path):
    """LMDB maps the file: to touch a page that is missing would kill the process (SIGBUS)."""
    rng = np.random.default_rng(0)
    stored = [encode(rng.integers(0, 256, (64, 64, 3))) for _ in range(30)]
    folder = write_database(tmp_path / "t_train_lmdb", stored)
    whole = (folder / "data.mdb").read_bytes()
    cut = tmp_path / "cut" / "c_train_lmdb"
    cut.mkdir(parents=True)
    lengths = [0, 1, 4095, 4096, 8191, 8192, 9000, len(whole) // 2, len(whole) - 1]
    code = f"""
import sys
from pathlib import Path
from ddpm.data.lsun import lmdb_images
from ddpm.errors import DdpmError
path, whole = Path({str(cut)!r}), Path({str(folder / "data.mdb")!r}).read_bytes()
for length in {lengths}:
    (path / "data.mdb").write_bytes(whole[:length])
    try:
        lmdb_images(path, 4, 3)
    except DdpmError as error:
        assert "copy it again" in str(error), error
        print(length)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(lsun.__file__).parents[2])},
    )
    assert done.stdout.split() == [str(length) for length in lengths], done.stderr


def test_a_file_that_is_no_database_is_named(tmp_path):
    folder = tmp_path / "x_train_lmdb"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"no database" * 10_000)
    with pytest.raises(DdpmError, match=r"x_train_lmdb is damaged .*copy it again"):
        open_path(folder)


def test_without_the_library_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(1)])
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DdpmError, match=r"pip install lmdb"):
        open_path(folder)


def test_reading_takes_no_lock_and_writes_nothing_into_the_folder(tmp_path):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(1)])
    (folder / "lock.mdb").unlink()
    before = (folder / "data.mdb").read_bytes(), (folder / "data.mdb").stat().st_mtime_ns
    assert values(lmdb_images(folder, 4, 3, memory_limit=0)) == [1]
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]
    assert before == ((folder / "data.mdb").read_bytes(), (folder / "data.mdb").stat().st_mtime_ns)


def test_two_sets_of_one_database_can_be_open_at_once(tmp_path):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(1), flat(2)])
    first = lmdb_images(folder, 4, 3, memory_limit=0)
    second = lmdb_images(folder / ".." / folder.name, 4, 3, memory_limit=0)
    assert values(first) == values(second) == values(first) == [1, 2]


def _handle_after_reading(images):
    """The process that opened the handle an image is read with, and the one that reads it."""
    images[0]
    return lsun._handles[images.folder][0], os.getpid()


def test_a_handle_is_not_used_across_a_fork(tmp_path):
    images = LmdbImages(write_database(tmp_path / "a_train_lmdb", [flat(1)]), "a")
    opened, here = _handle_after_reading(images)
    assert opened == here
    with multiprocessing.get_context("fork").Pool(1) as pool:
        opened, there = pool.apply(_handle_after_reading, (images,))
    assert opened == there != here
    assert images[0] == flat(1)


def test_keys_are_listed_once(tmp_path, cache, monkeypatch):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(i) for i in range(5)])
    assert values(open_path(folder)) == [0, 1, 2, 3, 4]
    (kept,) = cache.glob("image-keys-*")
    monkeypatch.setattr(lsun, "write_packed", None)  # to list them again would fail
    assert values(open_path(folder)) == [0, 1, 2, 3, 4]
    assert list(cache.glob("image-keys-*")) == [kept]


@pytest.mark.parametrize("change", ["content", "time"])
def test_keys_of_a_changed_database_are_listed_again(tmp_path, cache, change):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(0)], [b"k0"])
    assert values(open_path(folder)) == [0]
    if change == "content":
        other = write_database(tmp_path / "other", [flat(7), flat(8)], [b"k0", b"k1"])
        (other / "data.mdb").replace(folder / "data.mdb")
        assert values(open_path(folder)) == [7, 8]
    else:
        os.utime(folder / "data.mdb", ns=(1, 1))
        assert values(open_path(folder)) == [0]
    assert len(list(cache.glob("image-keys-*"))) == 2


def test_a_key_that_has_gone_is_a_sentence(tmp_path):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(0), flat(1)], [b"k0", b"k1"])
    images = LmdbImages(folder, "a")
    lsun._handles.pop(images.folder)[1].close()
    with lmdb.open(str(folder)) as handle, handle.begin(write=True) as transaction:
        transaction.delete(b"k1")
    with pytest.raises(DdpmError, match=r"image k1 of .* has disappeared"):
        images[1]


def test_a_damaged_list_of_keys_is_named(tmp_path, cache):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(i) for i in range(5)])
    open_path(folder)
    (kept,) = cache.glob("image-keys-*")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:10], whole[:-8], whole[8:], whole[:-3] + b"\x7f" * 3):
        kept.write_bytes(damaged)
        with pytest.raises(DdpmError, match="is damaged; delete it"):
            open_path(folder)


def test_a_cache_that_cannot_be_written_is_a_sentence_that_names_the_variable(
    tmp_path, monkeypatch
):
    folder = write_database(tmp_path / "a_train_lmdb", [flat(0)])
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DdpmError, match="set XDG_CACHE_HOME to a folder that has some"):
        open_path(folder)
