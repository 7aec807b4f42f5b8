"""Image data sets as Parquet files, which is how the Hugging Face hub stores them.

The images are a column of encoded bytes, plain or inside a struct, whatever it is called.

A Parquet file is read in groups of some hundred rows, which suits no shuffled order. The encoded
bytes of a small set are therefore held in memory, and those of a big one unpacked once, into a file
of the cache that has the set's own size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddpm.data.cache import cached
from ddpm.data.images import ImageSource
from ddpm.data.packed import Packed, write_packed
from ddpm.data.streamed import MEMORY_LIMIT, fits_in_memory, open_encoded
from ddpm.errors import DdpmError, check

COLUMNS = ("image", "img", "images", "jpg", "jpeg", "png", "webp", "picture", "bytes")
LABELS = ("label", "labels", "fine_label", "class", "target")
ROWS_AT_A_TIME = 256


@dataclass
class Rows:
    """The encoded images of Parquet files.

    Args:
        cells: the images.
        name: of the set.
        labels: the class of each, where every row says it.
        empty: rows without an image, which are left out.
        class_names: of all classes, where the files say them.
    """

    cells: Sequence[bytes] | Packed
    name: str
    labels: torch.Tensor | None = None
    empty: int = 0
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> bytes:
        return self.cells[index]

    def describe(self, index: int) -> str:
        """The row, counted over all files."""
        return f"row {index} of {self.name}"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`; what goes wrong with it names the file."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DdpmError("reading Parquet needs pyarrow; pip install pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise DdpmError(f"cannot read {path}: {error}") from error


def _values(path: Path, column: str) -> Iterator[Any]:
    """The values of a column of one file, in order."""
    with _opened(path) as file:
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=[column]):
            yield from batch.column(0).to_pylist()


def image_column(path: Path) -> str:
    """The column that holds encoded images: one of the usual name, or the only one that can.

    Raises:
        DdpmError: there is none, or it is unclear which.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
    import pyarrow  # which is there, since the file could be opened

    def is_bytes(kind: Any) -> bool:
        if pyarrow.types.is_dictionary(kind):
            kind = kind.value_type
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    candidates = []
    for column in schema:
        kind = column.type
        fields = [kind.field(i) for i in range(kind.num_fields)]
        inside = pyarrow.types.is_struct(kind) and any(
            field.name == "bytes" and is_bytes(field.type) for field in fields
        )
        if is_bytes(kind) or inside:
            candidates.append(column.name)
    usual = [name for name in COLUMNS if name in candidates]
    check(
        len(candidates) > 0,
        f"{path} has no column of encoded images but {', '.join(schema.names)}; write them as PNG "
        "or JPEG bytes",
    )
    check(
        bool(usual) or len(candidates) == 1,
        f"{path} has several columns of bytes ({', '.join(candidates)}); call that of the images "
        "'image'",
    )
    return usual[0] if usual else candidates[0]


def has_images(path: Path) -> bool:
    """Whether a file has a column of images, or is none that tells."""
    try:
        return bool(image_column(path))
    except DdpmError:
        return False


def _cells(path: Path, column: str) -> Iterator[bytes | None]:
    """The encoded images of a file, in order; None for an empty row."""
    for value in _values(path, column):
        data = value.get("bytes") if isinstance(value, dict) else value
        elsewhere = value.get("path") if isinstance(value, dict) and data is None else None
        check(
            not elsewhere,
            f"{path} holds only the paths of its images (such as {elsewhere}) and not the images "
            "themselves; name their folder instead",
        )
        yield data


def _labels(files: list[Path]) -> tuple[list[int] | None, tuple[str, ...]]:
    """The label of every row, if each has one and it is a number; and what the classes are called,
    if all files say so and say the same."""
    labels: list[int] = []
    called: set[tuple[str, ...]] = set()
    for path in files:
        with _opened(path) as file:
            schema = file.schema_arrow
        names = [name for name in LABELS if name in schema.names]
        if not names:
            return None, ()
        called.add(_class_names(schema.metadata or {}, names[0]))
        labels += _values(path, names[0])
    if not all(isinstance(label, int) for label in labels):
        return None, ()
    return labels, called.pop() if len(called) == 1 else ()


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...]:
    """The names of the classes in a column, from what the Hugging Face libraries note in a file."""
    try:
        noted = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):  # none, or written by somebody else
        return ()
    known = isinstance(noted, list) and all(isinstance(name, str) for name in noted)
    return tuple(noted) if known else ()


def parquet_rows(
    files: list[Path], image_size: int, channels: int, name: str, memory_limit: int = MEMORY_LIMIT
) -> Rows:
    """The encoded images of the files, in order: in memory, or unpacked into the cache.

    Raises:
        DdpmError: pyarrow is not installed, or a file has no column of images or is damaged.
    """
    count = 0
    for path in files:
        with _opened(path) as file:
            count += file.metadata.num_rows
    columns = {path: image_column(path) for path in files}

    def rows() -> Iterator[bytes | None]:
        for path, column in columns.items():
            yield from _cells(path, column)

    def full() -> Iterator[bytes]:
        return (data for data in rows() if data is not None)

    labels, class_names = _labels(files)

    def of_rows(kept: Iterable[int]) -> torch.Tensor | None:
        return None if labels is None else torch.tensor([int(labels[i]) for i in kept])

    if not fits_in_memory(count, image_size, channels, memory_limit):
        packed = Packed(cached("images", files, lambda path: write_packed(path, full())))
        empty = count - len(packed)
        kept = range(count) if not empty else (i for i, d in enumerate(rows()) if d is not None)
        return Rows(packed, name, of_rows(kept), empty, class_names)
    everything = list(rows())
    full_rows = [i for i, data in enumerate(everything) if data is not None]
    cells = [data for data in everything if data is not None]
    return Rows(cells, name, of_rows(full_rows), count - len(cells), class_names)


def parquet_images(
    files: list[Path], image_size: int, channels: int, name: str, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """Every image of the files, in order, with their labels.

    Raises:
        DdpmError: see `parquet_rows`; or more than 1% of the images are broken.
    """
    rows = parquet_rows(files, image_size, channels, name, memory_limit)
    return open_encoded(rows, image_size, channels, memory_limit)
