"""Image data sets in the Hugging Face Parquet layout: a column `image` of encoded bytes.

A Parquet file is read in groups of some hundred rows, which suits no shuffled order. The encoded
bytes of a small set are therefore held in memory, and those of a big one unpacked once, into a file
of the cache that has the set's own size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddpm.data.cache import cached
from ddpm.data.images import ImageSource, MemoryImages
from ddpm.data.packed import Packed, write_packed
from ddpm.data.streamed import MEMORY_LIMIT, fits_in_memory, open_encoded
from ddpm.errors import DdpmError, check

COLUMN, LABELS = "image", "label"
ROWS_AT_A_TIME = 256


@dataclass
class Rows:
    """The encoded images of Parquet files."""

    cells: Sequence[bytes] | Packed
    name: str

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


def _cells(files: list[Path]) -> Iterator[bytes]:
    """The encoded images of all files, in order."""
    for path in files:
        for value in _values(path, COLUMN):
            data = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(data, bytes):
                raise DdpmError(f"an image in {path} is not stored as bytes")
            yield data


def _labels(files: list[Path]) -> torch.Tensor | None:
    """The label of every row, if each has one and it is a number."""
    for path in files:
        with _opened(path) as file:
            if LABELS not in file.schema_arrow.names:
                return None
    labels = [label for path in files for label in _values(path, LABELS)]
    return torch.tensor(labels) if all(isinstance(label, int) for label in labels) else None


def parquet_images(
    files: list[Path], image_size: int, channels: int, name: str, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """Every image of the files, in order.

    Raises:
        DdpmError: pyarrow is not installed, a file has no image column or is damaged, or more than
            1% of the images are broken.
    """
    count = 0
    for path in files:
        with _opened(path) as file:
            names = file.schema_arrow.names
            check(COLUMN in names, f"{path} has no column '{COLUMN}' but {', '.join(names)}")
            count += file.metadata.num_rows
    cells: Sequence[bytes] | Packed
    if fits_in_memory(count, image_size, channels, memory_limit):
        cells = list(_cells(files))
    else:
        cells = Packed(cached("images", files, lambda path: write_packed(path, _cells(files))))
    source = open_encoded(Rows(cells, name), image_size, channels, memory_limit)
    if isinstance(source, MemoryImages) and len(source) == count:
        source.labels = _labels(files)
    return source
