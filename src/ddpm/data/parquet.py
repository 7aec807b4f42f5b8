"""Image data sets in the Hugging Face Parquet layout: a column `image` of encoded bytes."""

from __future__ import annotations

from pathlib import Path

import torch

from ddpm.data.decode import decode_image, map_skipping_broken
from ddpm.data.images import MemoryImages
from ddpm.errors import DdpmError, check


def parquet_images(files: list[Path], image_size: int, channels: int, name: str) -> MemoryImages:
    """Every image of the files, in order, held in memory.

    Raises:
        DdpmError: pyarrow is not installed, or a file has no image column or is damaged.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DdpmError("reading Parquet needs pyarrow; pip install 'ddpm[parquet]'") from error

    encoded: list[bytes] = []
    labels: list[int] = []
    for path in files:
        try:
            table = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise DdpmError(f"cannot read {path}: {error}") from error
        check(
            "image" in table.column_names,
            f"{path} has no column 'image' but {', '.join(table.column_names)}",
        )
        for cell in table["image"].to_pylist():
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise DdpmError(f"an image in {path} is not stored as bytes")
            encoded.append(data)
        if "label" in table.column_names:
            labels.extend(table["label"].to_pylist())
    check(len(encoded) > 0, f"{files[0]} holds no images")
    numbered = list(enumerate(encoded))
    images = map_skipping_broken(
        lambda item: decode_image(item[1], image_size, channels),
        numbered,
        lambda item: f"row {item[0]} of {name}",
    )
    known = len(labels) == len(images) and all(isinstance(label, int) for label in labels)
    return MemoryImages(
        torch.stack(images), name=name, labels=torch.tensor(labels) if known else None
    )
