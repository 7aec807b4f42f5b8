"""The classes of images that lie in a folder, or an archive, with a folder for each class."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from ddpm.data.images import EncodedImages
from ddpm.data.labels import in_order
from ddpm.data.listing import Ways
from ddpm.data.splits import Divided, side

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")


@dataclass
class Labelled:
    """Encoded images whose classes are known.

    Args:
        encoded: the images.
        labels: of each, long, [n].
        class_names: of all classes.
    """

    encoded: EncodedImages
    labels: Tensor
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the set."""
        return self.encoded.name

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> bytes:
        return self.encoded[index]

    def describe(self, index: int) -> str:
        """See `EncodedImages`."""
        return self.encoded.describe(index)


def by_folder(
    encoded: EncodedImages, images: list[str], paths: dict[str, Ways], divided: Divided
) -> EncodedImages:
    """Encoded images with their classes, if their folders say them; else as they are.

    Args:
        encoded: the images of one split.
        images: their names, in the same order.
        paths: of all images of the set, every way to each (see `splits.divide`).
        divided: all images of the set.
    """
    classes = class_folders(paths, divided)
    if not images or not all(image in classes for image in images):
        return encoded
    names = in_order(classes.values())
    number = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([number[classes[image]] for image in images])
    return Labelled(encoded, labels, names)


def class_folders(paths: dict[str, Ways], divided: Divided) -> dict[str, str]:
    """The class of each image: its topmost folder below the named path.

    A folder that names a split (`train`, `test`) is none of a class, and neither are folders above
    the classes that all images share. All images to train on must lie equally deep, at least one
    folder deep; held-out ones that lie at another depth have no class.
    """
    held_out = divided.test + divided.spare
    used = divided.train + held_out
    # A folder `train` beside others that name no split may be one of vehicles.
    splits = bool(held_out) or all(_split(paths[image][0][:-1]) for image in divided.train)
    folders = {image: _class_path(paths[image][0][:-1], splits) for image in used}
    depths = {len(folders[image]) for image in divided.train or held_out}
    depth = depths.pop() if len(depths) == 1 else 0
    if depth == 0:
        return {}
    folders = {image: parts for image, parts in folders.items() if len(parts) == depth}
    level = 0
    while level < depth - 1 and len({parts[level] for parts in folders.values()}) == 1:
        level += 1
    return {image: parts[level] for image, parts in folders.items()}


def _split(names: tuple[str, ...]) -> list[int]:
    """Where folders name a split."""
    return [i for i, name in enumerate(names) if side(name) is not None]


def _class_path(names: tuple[str, ...], splits: bool) -> tuple[str, ...]:
    """The folders of an image without the topmost one that names a split."""
    marked = _split(names) if splits else []
    kept = names[: marked[0]] + names[marked[0] + 1 :] if marked else names
    return tuple(_plain(name) for name in kept if name)


def _plain(name: str) -> str:
    """A folder's name, written alike on every system; an archive's without its endings."""
    while PurePosixPath(name).suffix.lower() in ARCHIVES:
        name = PurePosixPath(name).stem
    return unicodedata.normalize("NFC", name)
