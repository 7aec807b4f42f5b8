"""Parquet files as the hub stores them: columns, labels, empty rows, places."""

import logging
import os

import pyarrow as pa
import pytest

from data.form_makers import encoded, opened, write, write_table
from ddpm.errors import DdpmError

CELLS = [encoded(1), encoded(2), encoded(3)]

COLUMNS = ["image", "img", "images", "jpg", "png", "jpeg", "picture", "photo", "X", "pixel values"]
BINARY = {
    "bytes": pa.binary(),
    "long bytes": pa.large_binary(),
    "a dictionary": pa.dictionary(pa.int32(), pa.binary()),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_the_column_of_images_is_found(column, tmp_path):
    write_table(tmp_path / "a.parquet", CELLS, column, text=["a", "b", "c"])
    assert opened(tmp_path / "a.parquet")[0] == [1, 2, 3]


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("column", ["image", "jpg", "X"])
def test_a_plain_column_is_found(column, kind, tmp_path):
    write_table(tmp_path / "a.parquet", CELLS, column, False, BINARY[kind], text=["a", "b", "c"])
    assert opened(tmp_path / "a.parquet")[0] == [1, 2, 3]


BESIDE = {
    "texts and paths": {"caption": ["a", "b", "c"], "path": ["x.png", "y.png", "z.png"]},
    "numbers": {"width": [9, 9, 9], "score": [0.5, 0.25, 1.0]},
    "lists": {"embedding": [[0.1, 0.2]] * 3},
    "a thumbnail": {"thumbnail": CELLS[::-1]},
    "a mask": {"mask": CELLS[::-1], "annotation": CELLS[::-1]},
}


@pytest.mark.parametrize("column", ["image", "jpg"])
@pytest.mark.parametrize("case", BESIDE)
def test_it_is_found_beside(case, column, tmp_path):
    write_table(tmp_path / "a.parquet", CELLS, column, **BESIDE[case])
    assert opened(tmp_path / "a.parquet")[0] == [1, 2, 3]


def test_of_columns_that_could_all_be_meant_each_is_named(tmp_path):
    write_table(tmp_path / "a.parquet", CELLS, "before", after=CELLS)
    with pytest.raises(DdpmError, match=r"before.*after"):
        opened(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "class"])
def test_labels_are_read_from_the_column(name, tmp_path):
    write_table(tmp_path / "a.parquet", CELLS, **{name: [7, 0, 5]})
    assert opened(tmp_path / "a.parquet") == ([1, 2, 3], [7, 0, 5])


NULLS = {
    "null rows": (True, [CELLS[0], None, CELLS[1], None, CELLS[2]]),
    "null rows of a plain column": (False, [CELLS[0], None, CELLS[1], None, CELLS[2]]),
    "a null row first": (True, [None, None, *CELLS]),
    "cells without bytes": (False, [*({"bytes": cell} for cell in CELLS), *[{"bytes": None}] * 2]),
}


@pytest.mark.parametrize("case", NULLS)
def test_rows_without_an_image_are_left_out_and_counted(case, tmp_path, caplog):
    struct, cells = NULLS[case]
    kind = pa.struct([("bytes", pa.binary())]) if "cells" in case else None
    write_table(tmp_path / "a.parquet", cells, "img", struct, kind, label=[10, 11, 12, 13, 14])
    with caplog.at_level(logging.INFO, logger="ddpm"):
        found, labels = opened(tmp_path / "a.parquet")
    assert found == [1, 2, 3]
    assert labels == [10 + i for i, cell in enumerate(cells) if cell not in (None, {"bytes": None})]
    assert "3 images" in caplog.text
    assert "left out 2" in caplog.text


PLACES = ["", "data", "plain_text", "default/train", "a/b/c", "name.with.dots"]


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "0000.parquet", "x.PARQUET"])
@pytest.mark.parametrize("place", PLACES)
def test_parquet_files_are_found_at_any_depth(place, name, tmp_path):
    write_table(tmp_path / "own" / place / name, CELLS, label=[1, 2, 3])
    write(tmp_path / "own" / "README.md", b"---\nlicense: mit\n---")
    write(tmp_path / "own" / ".gitattributes", b"*.parquet filter=lfs")
    assert opened(tmp_path / "own") == ([1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("place", ["", "snapshots/0b1f"])
def test_the_hubs_cache_of_links_is_read(place, tmp_path):
    own = tmp_path / "datasets--cifar10"
    for name, cells in (("train", CELLS), ("test", [encoded(9)])):
        write_table(own / "blobs" / f"{name}.sha", cells, label=[5] * len(cells))
        blob = (own / "blobs" / f"{name}.sha").rename(own / "blobs" / ("0a" * (len(cells) + 5)))
        link = own / "snapshots/0b1f/plain_text" / f"{name}-00000-of-00001.parquet"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert opened(own / place) == ([1, 2, 3], [5, 5, 5])
    assert opened(own / place, split="test")[0] == [9]
