"""Images that are stored as plain arrays: .npz and .npy, and the idx files of MNIST."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddpm.data.content import divide_by_content, pixel_keys
from ddpm.data.decode import to_square
from ddpm.data.foreign import check_genuine
from ddpm.data.images import MemoryImages
from ddpm.data.splits import Divided, Split, divide, side, words
from ddpm.data.streamed import MEMORY_LIMIT, fits_in_memory
from ddpm.errors import DdpmError, check

LABELS = frozenset(("y", "label", "labels", "targets"))
IDX_UINT8 = b"\x00\x00\x08"  # magic of an idx file of bytes; the fourth byte counts dimensions
Pixels = NDArray[np.uint8]


@dataclass
class Arrays:
    """The arrays of one file or folder that are images, and their labels.

    Args:
        path: for messages.
        images: by name, a function that reads one, [n, h, w] or [n, h, w, c]. A name is a path
            below the named one, such as train/a.npz/images.
        labels: by name, one, [n].
        others: what else is there.
    """

    path: Path
    images: dict[str, Callable[[], Pixels]]
    labels: dict[str, Callable[[], np.ndarray]]
    others: list[str] = field(default_factory=list)

    def divided(self) -> Divided:
        """The arrays of images, divided by their names."""
        return divide({name: [(*name.split("/"), "")] for name in self.images})

    def read(self, split: Split) -> tuple[Pixels, NDArray[np.int64] | None]:
        """The images of a split, and their labels if all have some.

        Raises:
            DdpmError: there are none, or they are of different shapes.
        """
        divided = self.divided()
        names = divided.train if split == "train" else divided.test
        check(len(names) > 0, f"{self.path} has no {split} images but {', '.join(self.images)}")
        shapes = {name: self.images[name]() for name in names}
        check(
            len({array.shape[1:] for array in shapes.values()}) == 1,
            f"{self.path} holds images of different shapes in {', '.join(names)}; name one by "
            "leaving the others out",
        )
        found = [self._labels_of(name, len(array)) for name, array in shapes.items()]
        labels = [values for values in found if values is not None]
        return np.concatenate(list(shapes.values())), (
            np.concatenate(labels) if len(labels) == len(names) else None
        )

    def _labels_of(self, name: str, count: int) -> NDArray[np.int64] | None:
        """The labels that stand beside an array of images."""
        above, _, own = name.rpartition("/")
        for other, read in self.labels.items():
            beside, _, called = other.rpartition("/")
            if beside == above and side(called) == side(own):
                values = read().reshape(-1).astype(np.int64)
                if len(values) == count:
                    return values
        return None


def npz_arrays(path: Path) -> Arrays:
    """The arrays of an .npz or .npy file; nothing pickled is read.

    Raises:
        DdpmError: it is damaged, or holds no uint8 images.
    """
    check_genuine(path)
    try:
        found = Arrays(path, {}, {})
        seen: list[str] = []
        for name, array in _load(path):
            found.others.append(name)
            if array is None:
                seen.append(f"{name} (of Python objects)")
                continue
            seen.append(f"{name} ({array.dtype} {list(array.shape)})")
            if array.ndim >= 1 and array.dtype.kind in "iu" and LABELS.intersection(words(name)):
                found.labels[name] = partial(_same, array)
                found.others.remove(name)
                continue
            pixels = _as_images(array)
            if pixels is not None:
                found.images[name] = partial(_same, pixels)
                found.others.remove(name)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DdpmError(f"{path} cannot be read as NumPy arrays ({error})") from error
    check(
        len(found.images) > 0,
        f"{path} holds no images but {', '.join(seen) or 'nothing'}; images are uint8 arrays "
        "[n, height, width, channels] of grey levels 0..255",
    )
    return found


def _load(path: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    """The arrays of a file; None in place of one of Python objects, which are not read."""
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            yield "images", loaded
            return
        for name in loaded.files:
            try:
                array = loaded[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                array = None
            yield name, array


def _same(array: np.ndarray) -> np.ndarray:
    """An array that has been read already."""
    return array


def _as_images(array: np.ndarray) -> Pixels | None:
    """An array as [n, h, w] or [n, h, w, c], if it is one of images."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.size == 0:
        return None
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return None  # a single image
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        return array.transpose(0, 2, 3, 1) if array.shape[1] in (1, 3) else None
    return array


def together(path: Path, files: list[Arrays]) -> Arrays:
    """The arrays of several files below a path."""
    found = Arrays(path, {}, {})
    for file in files:
        above = file.path.relative_to(path).as_posix()
        found.images |= {f"{above}/{name}": read for name, read in file.images.items()}
        found.labels |= {f"{above}/{name}": read for name, read in file.labels.items()}
        found.others += [f"{above}/{name}" for name in file.others]
    return found


def is_idx(path: Path) -> bool:
    """Whether a file is called like images in MNIST's form: train-images-idx3-ubyte.gz."""
    return re.search(r"idx3[-.]?ubyte|\.idx3$", path.name.lower().removesuffix(".gz")) is not None


def idx_arrays(path: Path, files: list[Path]) -> Arrays:
    """The images of idx files, and the labels that lie beside them.

    Args:
        path: for messages.
        files: of images; of one that is there twice, compressed and not, one is read.
    """
    found = Arrays(path, {}, {})
    for file in files:
        check_genuine(file)
        found.images[_below(file, path)] = partial(read_idx, file, 3)
        beside = file.name.lower().replace("images", "labels").replace("idx3", "idx1")
        for other in file.parent.iterdir():
            if other.name.lower().removesuffix(".gz") == beside.removesuffix(".gz"):
                found.labels[_below(other, path)] = partial(read_idx, other, 1)
    names = [name.rpartition("/")[2] for name in found.images]
    check(
        len(set(names)) == len(names),
        f"{path} holds several sets ({', '.join(found.images)}); name the folder of one",
    )
    return found


def _below(file: Path, path: Path) -> str:
    """A file's name below a path, the same whether it is compressed or not."""
    name = file.relative_to(path).as_posix() if path.is_dir() else file.name
    return name.removesuffix(".gz")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of bytes, compressed or not.

    Raises:
        DdpmError: it is damaged or something else.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DdpmError(f"cannot read {path} ({error}); download it again") from error
    head = 4 + 4 * dimensions
    check(
        data[:4] == IDX_UINT8 + bytes([dimensions]) and len(data) >= head,
        f"{path} is no idx file of {dimensions} dimensions; download it again",
    )
    shape = tuple(np.frombuffer(data[4:head], ">u4").tolist())
    check(
        len(data) - head == int(np.prod(shape)),
        f"{path} is damaged: it has {len(data) - head:,} of {int(np.prod(shape)):,} bytes; "
        "download it again",
    )
    return np.frombuffer(data[head:], np.uint8).reshape(shape)


def array_images(
    arrays: Arrays, split: Split, image_size: int, channels: int, hold_out: float, name: str
) -> MemoryImages:
    """The images of a split in one size and colour, in memory.

    Raises:
        DdpmError: they do not fit there, or there are none.
    """
    pixels, labels = arrays.read("train" if hold_out else split)
    if hold_out:
        keys = pixel_keys(len(pixels), lambda i: _rgb(pixels[i]))
        chosen = divide_by_content(keys, hold_out, split, name)
        pixels, labels = pixels[chosen], None if labels is None else labels[chosen]
    check(
        fits_in_memory(len(pixels), image_size, channels, MEMORY_LIMIT),
        f"the {len(pixels):,} images of {arrays.path} do not fit in memory at {image_size}x"
        f"{image_size}; write them as PNG files",
    )
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[:, :, :, 0]
    images = [to_square(Image.fromarray(image), 8, image_size, channels) for image in pixels]
    return MemoryImages(
        torch.stack(images),
        name=name,
        labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)),
    )


def _rgb(image: Pixels) -> Pixels:
    """One image as [h, w, 3]."""
    if image.ndim == 2:
        image = image[:, :, None]
    return np.broadcast_to(image, (*image.shape[:2], 3))
