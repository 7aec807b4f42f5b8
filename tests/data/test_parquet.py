"""Parquet files in the Hugging Face layout: a struct column `image` of encoded bytes."""

import io
import logging
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data import open_data, parquet
from ddpm.data.parquet import parquet_images
from ddpm.errors import DdpmError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(value, side=4):
    """The bytes of a PNG filled with one grey value."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


def write(path, cells, labels=None, column="image"):
    """A Parquet file of image structs."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": cell, "path": None} for cell in cells]
    columns = {column: pa.array(cells, kind)}
    if labels is not None:
        columns["label"] = pa.array(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def open_path(path, split="train"):
    """The 4x4 RGB images of a Parquet file or folder."""
    return open_data(path, split, image_size=4)


def values(data):
    """The grey value of each image."""
    assert data.format.shape == (3, 4, 4)
    assert torch.equal(data.images, data.images[:, :1, :1, :1].expand_as(data.images))
    return data.images[:, 0, 0, 0].tolist()


def test_images_and_labels_come_out_in_the_order_of_the_rows(tmp_path):
    path = write(tmp_path / "a.parquet", [png(9), png(3), png(200, side=8)], [4, 0, 7])
    data = open_path(path)
    assert values(data) == [9, 3, 200]
    assert data.labels.tolist() == [4, 0, 7]


def test_a_plain_column_of_bytes_is_read_too(tmp_path):
    pq.write_table(pa.table({"image": [png(1), png(2)]}), tmp_path / "a.parquet")
    data = open_path(tmp_path / "a.parquet")
    assert values(data) == [1, 2]
    assert data.labels is None


@pytest.mark.parametrize("sub", ["", "data"])
def test_file_names_make_the_splits(tmp_path, sub):
    folder = tmp_path / sub
    write(folder / "train-00001-of-00002.parquet", [png(3)])
    write(folder / "train-00000-of-00002.parquet", [png(1), png(2)])
    write(folder / "test-00000-of-00001.parquet", [png(9)])
    write(folder / "validation-00000-of-00001.parquet", [png(8)])
    assert values(open_path(tmp_path)) == [1, 2, 3]
    assert values(open_path(tmp_path, "test")) == [9]


def test_files_without_a_split_in_their_names_are_for_training(tmp_path):
    write(tmp_path / "faces.parquet", [png(5)])
    write(tmp_path / "test-0.parquet", [png(6)])
    assert values(open_path(tmp_path)) == [5]
    (tmp_path / "test-0.parquet").unlink()
    with pytest.raises(DdpmError, match="no held-out images"):
        open_path(tmp_path, "test")


def test_a_single_file_has_no_test_split(tmp_path):
    path = write(tmp_path / "a.parquet", [png(1)])
    with pytest.raises(DdpmError, match="no held-out images"):
        open_path(path, "test")


def test_a_missing_image_column_is_refused_and_those_present_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"picture": ["x"], "label": [0]}), path)
    with pytest.raises(DdpmError, match="no column of encoded images but picture, label"):
        open_path(path)


def test_cells_that_are_not_bytes_are_refused(tmp_path):
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DdpmError, match="no column of encoded images but image"):
        open_path(tmp_path / "a.parquet")


def test_an_empty_row_is_left_out_with_its_label(tmp_path):
    source = open_path(write(tmp_path / "b.parquet", [png(1), None, png(3)], [5, 6, 7]))
    assert (values(source), source.labels.tolist()) == ([1, 3], [5, 7])


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DdpmError, match="holds no images"):
        open_path(write(tmp_path / "a.parquet", []))


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", [png(i) for i in range(20)])
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-5], b"x" * len(whole)):
        path.write_bytes(damaged)
        with pytest.raises(
            DdpmError, match=r"cannot read .*a\.parquet|a\.parquet is an empty file"
        ):
            open_path(path)


def test_a_broken_image_is_skipped_with_its_row_and_the_labels_are_not_misread(tmp_path, caplog):
    cells = [png(i) for i in range(100)]
    cells[41] = b"broken"
    path = write(tmp_path / "a.parquet", cells, list(range(100)))
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        data = open_path(path)
    assert values(data) == [i for i in range(100) if i != 41]
    assert "row 41 of a" in caplog.text
    assert "skipped 1 of 100 images" in caplog.text
    assert data.labels is None or data.labels.tolist() == [i for i in range(100) if i != 41]


def test_more_than_one_percent_broken_is_refused(tmp_path):
    cells = [png(i) for i in range(98)] + [b"", b"broken"]
    with pytest.raises(DdpmError, match="2 of 100 images cannot be read, first row 98"):
        open_path(write(tmp_path / "a.parquet", cells))


def test_labels_that_are_words_do_not_stop_the_images_from_being_read(tmp_path):
    path = write(tmp_path / "a.parquet", [png(1), png(2)], ["cat", "dog"])
    assert values(open_path(path)) == [1, 2]


def test_pixels_survive_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    data = open_path(write(tmp_path / "a.parquet", [buffer.getvalue()]))
    assert data.images[0].tolist() == pixels.transpose(2, 0, 1).tolist()


def test_a_big_set_is_unpacked_once_and_again_when_a_file_changes(tmp_path, cache, monkeypatch):
    files = [write(tmp_path / f"train-{i}.parquet", [png(10 * i), png(10 * i + 1)]) for i in (0, 1)]

    def read():
        data = parquet_images(files, 4, 3, "rows", memory_limit=0)
        return data[torch.arange(len(data))][:, 0, 0, 0].tolist()

    assert read() == [0, 1, 10, 11]
    (kept,) = cache.glob("images-*")
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_packed", None)  # to unpack again would fail
        assert read() == [0, 1, 10, 11]
    write(files[1], [png(7)])
    assert read() == [0, 1, 7]
    assert len(list(cache.glob("images-*"))) == 2
    assert kept.stat().st_size < 4 * len(png(0)) + 100  # the encoded images and little else


def test_damage_in_the_middle_of_a_big_file_leaves_nothing_in_the_cache(tmp_path, cache):
    path = write(tmp_path / "train-0.parquet", [png(i) for i in range(40)])
    damaged = bytearray(path.read_bytes())
    damaged[4:60] = b"x" * 56  # the first page; the footer is whole
    path.write_bytes(damaged)
    with pytest.raises(DdpmError, match=r"cannot read .*train-0\.parquet"):
        parquet_images([path], 4, 3, "rows", memory_limit=0)
    assert not [p for p in cache.iterdir() if p.suffix != ".lock"]


def test_without_the_library_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", [png(1)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DdpmError, match=r"pip install pyarrow"):
        open_path(path)
