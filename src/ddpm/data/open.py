"""One door to every data set: looks at a path, picks the reader that fits, and divides the images
into those to train on and those that are held out.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from ddpm.data.arrays import Arrays, array_images
from ddpm.data.cifar10 import cifar10_batches, find_batches
from ddpm.data.class_folders import by_folder
from ddpm.data.content import Chosen, divide_by_content, keys_of
from ddpm.data.forms import Found, look_at_file, look_into_folder
from ddpm.data.images import ImageSource
from ddpm.data.listing import kinds, reasons, walk
from ddpm.data.splits import Split, divide
from ddpm.data.streamed import Report, open_encoded
from ddpm.errors import DdpmError, check
from ddpm.runtime.paths import exists, user_path

__all__ = ["Split", "open_data"]

log = logging.getLogger("ddpm")


class NoHeldOut(DdpmError):
    """A set has no held-out images."""


def open_data(
    path: str | Path | None,
    split: Split = "train",
    *,
    image_size: int = 32,
    channels: int = 3,
    hold_out: float = 0.0,
) -> ImageSource:
    """The images that a path names.

    `digits` is the embedded set. A path may be a folder of images, or a file or folder of Parquet,
    zip, tar, .npz, LMDB (LSUN's), CIFAR-10's batches or MNIST's idx files. What lies below it
    under a name that says so (`test`, `val`, ...; see `ddpm.data.splits`) is held out.

    Args:
        path: where they are.
        split: train, or test for those that are held out.
        image_size: side of the square that they are resized and centre-cropped to.
        channels: 1 for grey, 3 for RGB.
        hold_out: of a set that holds none out, the share to hold out, by content; in [0, 1).

    Raises:
        DdpmError: there is nothing there, no such split, or the images do not fit.
    """
    if path is None or str(path) == "":
        raise DdpmError("no path to the images is given; set data.path")
    check(0 <= hold_out < 1, f"data.hold_out must lie in [0, 1), got {hold_out:g}")
    if str(path) == "digits":
        check(
            (image_size, channels) == (8, 1),
            "the embedded digits are 8x8 and grey; set data.image_size 8 and data.channels 1",
        )
        _check_split(Path("digits"), split, True, hold_out)
        from ddpm.data.digits import digits  # loads scikit-learn

        return digits(split)

    path = user_path(path)
    check(exists(path), f"{path} does not exist; data.path needs a folder or a file of images")
    check(path.is_dir() or path.is_file(), f"{path} is neither a folder nor a file")
    if path.is_dir():
        next(walk(path), None)  # a folder that may not be listed is told as such
    batches = find_batches(path)
    if batches is not None:
        _check_split(path, split, True, hold_out)
        cifar = cifar10_batches(batches, split)
        check(
            (image_size, channels) == (32, 3),
            f"CIFAR-10 images are 32x32 RGB, but {image_size}x{image_size} with {channels} "
            "channels is asked for; set data.image_size 32 and data.channels 3",
        )
        return cifar
    look = look_into_folder if path.is_dir() else look_at_file
    found = look(path, image_size, channels)
    if isinstance(found, Arrays):
        return _open_arrays(found, split, image_size, channels, hold_out)
    return _open(found, split, image_size, channels, hold_out)


def _open_arrays(
    found: Arrays, split: Split, image_size: int, channels: int, hold_out: float
) -> ImageSource:
    """The images of a split out of arrays."""
    has_held_out = bool(found.divided().test)
    _check_split(found.path, split, has_held_out, hold_out)
    name = _name(found.path, split, has_held_out or hold_out > 0)
    images = array_images(found, split, image_size, channels, hold_out, name)
    if split == "train":
        others = f"; not used: {', '.join(found.others)}" if found.others else ""
        log.info("%s: %s images%s", found.path, f"{len(images):,}", others)
    return images


def _open(
    found: Found, split: Split, image_size: int, channels: int, hold_out: float
) -> ImageSource:
    """The images of a split, and a line that says what was taken and what was not."""
    divided, report = divide(found.listing.images), Report(Counter(found.listing.left_out))
    held_out = divided.test + divided.spare
    _check_split(found.path, split, bool(held_out), hold_out)
    names = divided.train if hold_out or split == "train" else divided.test
    check(
        bool(names),
        f"everything in {found.path} is held out by its name ({', '.join(held_out[:1])}); to train "
        "on it, name its own folder, or unpack it",
    )
    encoded = found.open(names, _name(found.path, split, bool(held_out) or hold_out > 0))
    report.left_out["empty rows"] = getattr(encoded, "empty", 0)
    if found.single:
        encoded = by_folder(encoded, names, found.listing.images, divided)
    report.left_out["outside train and test"] = len(divided.outside)
    said = f"; held out {len(held_out):,}" if held_out and found.single else ""
    if divided.spare:
        said += f" ({len(divided.spare):,} for validation, which are not measured on)"
    if hold_out:
        keys = keys_of(encoded, found.files)
        chosen = divide_by_content(keys, hold_out, split, encoded.name)
        said = f"; held out {len(keys) - len(chosen):,} by content"
        encoded, names = Chosen(encoded, chosen), [names[i] for i in chosen] if found.single else []
    source = open_encoded(encoded, image_size, channels, report=report)
    if split == "train":
        taken = names if report.kept is None else [names[i] for i in report.kept if found.single]
        of_kinds = f" ({kinds(taken)})" if found.single else ""
        log.info(
            "%s: %s images%s%s%s",
            *(found.path, f"{len(source):,}", of_kinds, said, reasons(report.left_out)),
        )
    return source


def _name(path: Path, split: Split, divided: bool) -> str:
    """What a set is called."""
    name = path.resolve().name or str(path)
    return f"{name} (test)" if divided and split == "test" else name


def _check_split(path: Path, split: Split, has_held_out: bool, hold_out: float) -> None:
    """Refuse a split that a set does not have, and holding out of one that does it already."""
    check(
        not (has_held_out and hold_out),
        f"{path} has held-out images of its own; leave data.hold_out at 0",
    )
    where = f"put some in {path}/test" if path.is_dir() else "name a folder that has some"
    if split == "test" and not has_held_out and not hold_out:
        raise NoHeldOut(
            f"{path} has no held-out images; {where}, or train with data.hold_out 0.05; "
            "--split train measures on all of it"
        )
