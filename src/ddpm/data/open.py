"""One door to every data set: looks at a path and picks the reader that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ddpm.data.cifar10 import cifar10_batches, find_batches
from ddpm.data.folder import image_folder
from ddpm.data.images import ImageSource
from ddpm.data.lsun import find_databases, is_lmdb, lmdb_images
from ddpm.data.parquet import parquet_images
from ddpm.errors import DdpmError, check

Split = Literal["train", "test"]


def open_data(
    path: str | Path | None, split: Split = "train", *, image_size: int = 32, channels: int = 3
) -> ImageSource:
    """The images that a path names.

    `digits` is the embedded set. A folder may hold CIFAR-10's python batches, an LMDB database or
    LSUN's pair of them (`*_train_lmdb`, and `*_val_lmdb` for testing), Parquet files
    (`train-*.parquet`, `test-*.parquet`), or images; of the latter two, `train` and `test`
    subfolders or file names make the splits, and without them everything is for training.

    Args:
        path: where they are.
        split: train, or test for those that are held out.
        image_size: side of the square that they are resized and centre-cropped to.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DdpmError: there is nothing there, no such split, or the images do not fit.
    """
    if path is None:
        raise DdpmError("no path to the images is given; set data.path")
    size = image_size
    if str(path) == "digits":
        check(
            (size, channels) == (8, 1),
            "the embedded digits are 8x8 and grey; set data.image_size 8 and data.channels 1",
        )
        from ddpm.data.digits import digits  # loads scikit-learn

        return digits(split)

    path = Path(path).expanduser()
    check(path.exists(), f"{path} does not exist; data.path needs a folder or a Parquet file")
    if path.is_file():
        return _single_file(path, split, size, channels)

    batches = find_batches(path)
    if batches is not None:
        return _cifar10(batches, split, size, channels)

    if is_lmdb(path):
        check(
            split == "train",
            f"{path} has no test split; name the folder that holds it and its *_val_lmdb",
        )
        return lmdb_images(path, size, channels)
    if find_databases(path, "train") or find_databases(path, "test"):
        return lmdb_images(_only_database(path, split), size, channels)

    files = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if files:
        named = _of_split(files, path, split)
        return parquet_images(named, size, channels, f"{path.name} ({split})")

    subfolder = path / split
    if subfolder.is_dir():
        return image_folder(subfolder, size, channels)
    check(split == "train", f"{path} has no held-out split; put those images in {path}/test")
    return image_folder(path, size, channels)


def _single_file(path: Path, split: Split, image_size: int, channels: int) -> ImageSource:
    """A Parquet file, which is all for training."""
    check(path.suffix == ".parquet", f"{path} is no folder and no Parquet file; name its folder")
    check(split == "train", f"{path} has no test split; name a folder with test-*.parquet")
    return parquet_images([path], image_size, channels, path.stem)


def _cifar10(folder: Path, split: Split, image_size: int, channels: int) -> ImageSource:
    """CIFAR-10's python batches, which have one size and colour."""
    check(
        (image_size, channels) == (32, 3),
        f"CIFAR-10 images are 32x32 RGB, but {image_size}x{image_size} with {channels} channels is "
        "asked for; set data.image_size 32 and data.channels 3",
    )
    return cifar10_batches(folder, split)


def _of_split(files: list[Path], folder: Path, split: Split) -> list[Path]:
    """The Parquet files of a split, by the beginnings of their names."""
    named = [file for file in files if file.name.startswith(split)]
    if not named and split == "train":
        named = [file for file in files if not file.name.startswith(("test", "validation"))]
    check(len(named) > 0, f"{folder} has no {split}-*.parquet, so it has no {split} split")
    return named


def _only_database(folder: Path, split: Split) -> Path:
    """The one LSUN database of a split in a folder; of several it is unknown which is meant."""
    found = find_databases(folder, split)
    ending = {"train": "*_train_lmdb", "test": "*_val_lmdb"}[split]
    check(len(found) > 0, f"{folder} has no {ending}, so it has no {split} split")
    check(
        len(found) == 1,
        f"{folder} holds {', '.join(path.name for path in found)}; name one of them, or move "
        "one category to a folder of its own",
    )
    return found[0]
