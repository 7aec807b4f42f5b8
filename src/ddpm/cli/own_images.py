"""The images that a figure shows: of the user's own, or of what the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.cli.data import open_for, without_images
from ddpm.data.exact_files import read_images
from ddpm.data.images import ImageFormat, ImageSource, Indexed
from ddpm.data.listing import list_folder, readable_kinds
from ddpm.data.open import NoHeldOut, Split, open_data
from ddpm.data.splits import divide
from ddpm.errors import DdpmError, check
from ddpm.model import Ddpm
from ddpm.runtime.paths import exists, user_path

FULL = 256  # grey levels of a photograph


@dataclass(frozen=True)
class Chosen:
    """Images of a model's format.

    Args:
        images: to be read by index.
        words: what they are and how they were read, for a sentence.
    """

    images: Indexed
    words: str


@dataclass(frozen=True)
class Rounded:
    """A set of 256 grey levels in the fewer ones of a model."""

    source: ImageSource
    format: ImageFormat

    @property
    def name(self) -> str:
        """Of the set."""
        return self.source.name

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return torch.from_numpy(self.format.from_bytes(self.source[indices].numpy()))


def choose_images(
    model: Ddpm,
    path: str | None,
    split: Split | None,
    default: Split,
    numbers: Sequence[int] | None,
) -> Chosen:
    """Images for a figure.

    Files of exactly the model's format are taken as they are; what else is named is read as
    training reads it: the middle square, resized, and in the model's grey levels.

    Args:
        model: whose format they get.
        path: of the user's own, or None for the model's own data.
        split: which part of a data set, where the user says so.
        default: which part otherwise; of the user's own all images where none are held out.
        numbers: which of them, or None for the whole set.

    Raises:
        DdpmError: they cannot be found or read, or there are too few.
    """
    if path is None:
        source = _of_training(model, split or default)
        part = "held-out" if (split or default) == "test" else "training"
        return _some_of(source, numbers, f"{part} images of {source.name}")
    place, files = user_path(path), []
    if path != "digits":
        check(exists(place), f"{place} does not exist; name an image, a folder or a data set")
        files = _image_files(place) if split is None else []
    reason = ""
    if files and numbers is None and model.format.height != model.format.width:
        numbers = range(len(files))  # nothing is read as a rectangle but files of that size
    if files and numbers is not None:
        _check_numbers(numbers, len(files), place.name)
        try:
            exact = [_exact(files[number], model.format) for number in numbers]
            return Chosen(torch.stack(exact), f"{place.name}, pixel by pixel")
        except DdpmError as error:
            reason = str(error).split("; convert")[0]
    source = _as_training_does(model, path, split, default)
    side, levels = model.format.height, model.format.levels
    how = f"{source.name}, read as {side}x{side} squares as in training"
    if source.format != model.format:
        source = Rounded(source, model.format)
        how += f", in {levels} grey levels"
    return _some_of(source, numbers, how + (f", since {reason}" if reason else ""))


def _of_training(model: Ddpm, split: Split) -> ImageSource:
    """The model's own data."""
    check(
        bool(model.config.data.path),
        without_images(model, "name some behind the model: an image, a folder or a data set"),
    )
    try:
        return open_for(model, None, split)
    except DdpmError as error:
        raise DdpmError(f"{error}; or name images behind the model") from error


def _image_files(path: Path) -> list[Path]:
    """The files of a path that is an image or a folder of nothing but images to be shown."""
    if path.is_file():
        return [path] if path.suffix.lower() in readable_kinds() else []
    images = list_folder(path).images
    return [] if divide(images).test else [Path(name) for name in images]


def _exact(path: Path, image_format: ImageFormat) -> UInt8[Tensor, "c h w"]:
    """One image file in exactly a model's format.

    Raises:
        DdpmError: it is of another.
    """
    image = read_images(path, image_format).images[0]
    height, width = image.shape[1:]
    check(
        tuple(image.shape) == image_format.shape,
        f"{path.name} has {width}x{height} pixels",
    )
    return image


def _as_training_does(model: Ddpm, path: str, split: Split | None, default: Split) -> ImageSource:
    """A data set in the model's size and colours, maybe not in its grey levels."""
    expected = model.format
    check(
        expected.height == expected.width,
        f"images are read as squares, and this model expects {expected}; name files of exactly "
        "that format",
    )

    def opened(part: Split) -> ImageSource:
        if expected.levels == FULL or path == "digits":
            return open_for(model, path, part)
        return open_data(path, part, image_size=expected.height, channels=expected.channels)

    if split is not None:
        return opened(split)
    try:
        return opened(default)
    except NoHeldOut:
        return opened("train")


def _some_of(source: ImageSource, numbers: Sequence[int] | None, words: str) -> Chosen:
    """Images of a set by their numbers, read now; or the whole set."""
    if numbers is None:
        return Chosen(source, words)
    _check_numbers(numbers, len(source), source.name)
    return Chosen(source[torch.tensor(numbers)], words)


def _check_numbers(numbers: Sequence[int], there: int, name: str) -> None:
    """Refuse numbers that a set does not have."""
    need, highest = len(numbers), max(numbers)
    check(
        there >= need,
        f"{need:,} images are needed, and {name} has {there:,}; name a folder or a data set with "
        "more, or ask for fewer",
    )
    check(
        min(numbers) >= 0 and highest < there,
        f"{name} has images 0 to {there - 1:,}, and number "
        f"{highest if highest >= there else min(numbers)} is asked for",
    )
