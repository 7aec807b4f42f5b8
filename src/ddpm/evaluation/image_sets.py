"""Sets of images to be measured: of one size, never resized, read a batch at a time.

Whatever a set comes from, its images are uint8 of 256 grey levels here, so that a model's samples
give the same figures in memory, in a folder and in an .npz.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.arrays import Arrays
from ddpm.data.cifar10 import find_batches
from ddpm.data.decode import BrokenImage, Quiet, open_picture, orientation, plain, single, upright
from ddpm.data.exact_files import losses, some
from ddpm.data.folder import ImageFiles
from ddpm.data.forms import Found, look_at_file, look_into_folder
from ddpm.data.images import EncodedImages, ImageFormat, ImageSource, Shape
from ddpm.data.listing import reasons
from ddpm.data.splits import divide, side_of_path
from ddpm.errors import DdpmError, check
from ddpm.evaluation.array_file import ArrayFile
from ddpm.runtime.paths import exists
from ddpm.runtime.progress import Counter as Steps
from ddpm.runtime.progress import Progress

GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")  # Pillow's modes without colours
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")  # Pillow's names of forms that may lose detail

log = logging.getLogger("ddpm")


@runtime_checkable
class ImageSet(Protocol):
    """Images of one size that are read in order."""

    @property
    def name(self) -> str:
        """For messages and results."""
        ...

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        ...

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All images, 256 grey levels each, at most `size` at a time."""
        ...


@dataclass
class SourceSet:
    """A data source, such as what a model was trained on: never flipped."""

    source: ImageSource

    @property
    def name(self) -> str:
        """See `ImageSet`."""
        return self.source.name

    @property
    def shape(self) -> Shape:
        """See `ImageSet`."""
        return self.source.format.shape

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """See `ImageSet`."""
        for index in torch.arange(len(self)).split(size):
            yield torch.from_numpy(self.source.format.to_bytes(self.source[index].cpu().numpy()))


@dataclass
class PictureSet:
    """Pictures in files, archives, Parquet or a database.

    Args:
        encoded: their bytes.
        shape: (channels, height, width), which all were seen to have.
    """

    encoded: EncodedImages
    shape: Shape

    @property
    def name(self) -> str:
        """See `ImageSet`."""
        return self.encoded.name

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """See `ImageSet`.

        Raises:
            DdpmError: a picture is broken.
        """
        image_format, converted, first = ImageFormat(*self.shape), 0, ""
        for numbers in torch.arange(len(self)).split(size):
            images = []
            for i in numbers.tolist():
                image, lost = self._read(i, image_format)
                images.append(image)
                converted += bool(lost)
                first = first or (f"{self.encoded.describe(i)} ({', '.join(lost)})" if lost else "")
            yield torch.stack(images)
        if converted:
            log.warning(
                "%s of %s images in %s are no plain 8-bit colours, first %s; they were measured as "
                "a viewer shows them",
                *(f"{converted:,}", f"{len(self):,}", self.name, first),
            )

    def _read(
        self, index: int, image_format: ImageFormat
    ) -> tuple[UInt8[Tensor, "c h w"], list[str]]:
        """One picture, and what of it could not be kept."""
        try:
            picture = single(open_picture(self.encoded[index]))
            lost = losses(picture, image_format)
            mode = "L" if image_format.channels == 1 else "RGB"
            values = np.array(plain(upright(picture.image), picture.bits, mode))
        except BrokenImage as error:
            where = self.encoded.describe(index)
            raise DdpmError(f"{where} cannot be measured ({error}); mend or remove it") from error
        pixels = torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)
        check(
            tuple(pixels.shape) == self.shape,
            f"{self.encoded.describe(index)} has the shape {tuple(pixels.shape)} now, and had "
            f"{self.shape} at first; is something writing there?",
        )
        return pixels.contiguous(), lost


def open_set(path: Path, progress: Progress | None = None) -> ImageSet:
    """The images that a path names: a folder of pictures, an archive, Parquet, .npz, .npy.

    All pictures below a folder count, whatever their folders are called.

    Raises:
        DdpmError: there is nothing there, or the images are not all of one size.
    """
    check(exists(path), f"{path} does not exist; name a folder of images or an .npz")
    if path.is_file() and path.suffix.lower() in (".npz", ".npy"):
        return ArrayFile(path)
    check(
        find_batches(path) is None,
        f"{path} holds CIFAR-10 as its authors publish it, which has two splits; say cifar10-train "
        "or cifar10-test, and where it lies with the environment variable DDPM_CIFAR10",
    )
    look = look_into_folder if path.is_dir() else look_at_file
    found = look(path, 1, 3)  # the size and colours only matter to readers that convert
    if isinstance(found, Arrays):
        raise DdpmError(f"{path} holds arrays ({', '.join(found.images)}); name one .npz or .npy")
    _check_one_split(found)
    names = list(found.listing.images)
    encoded = found.open(names, path.resolve().name or str(path))
    log.info("%s: %s images%s", path, f"{len(encoded):,}", reasons(found.listing.left_out))
    return look_at(encoded, progress)


def picture_files(paths: Sequence[Path], name: str, shape: Shape) -> PictureSet:
    """Pictures that are known to be of a shape."""
    return PictureSet(ImageFiles(list(paths), name), shape)


def _check_one_split(found: Found) -> None:
    """Refuse a set of training images and held-out ones, which is neither."""
    images = found.listing.images
    divided = divide(images)
    held_out = divided.test + divided.spare
    marked = [name for name in divided.train if "train" in map(side_of_path, images[name])]
    if marked and held_out:
        raise DdpmError(
            f"{found.path} holds training images ({Path(marked[0]).name}) and held-out ones "
            f"({Path(held_out[0]).name}); name the folder or the file of one split"
        )


def look_at(encoded: EncodedImages, progress: Progress | None = None) -> PictureSet:
    """Look at the head of every picture: all must be of one size.

    The set is grey if all pictures are; in a set of colours a grey one has R = G = B, which is
    told, as are forms that may have lost detail.

    Raises:
        DdpmError: there are none, of several sizes, or some are no pictures.
    """
    count = len(encoded)
    check(count > 0, f"{encoded.name} holds no images")
    sizes: Counter[tuple[int, int]] = Counter()
    examples: dict[tuple[int, int], str] = {}
    forms: Counter[str] = Counter()
    grey, broken = 0, []
    counter = Steps(progress, count, "looking at images")
    with Quiet.context():
        for index in range(count):
            try:
                size, form, colourless = _head(encoded[index])
            except DdpmError as error:
                broken.append(f"{encoded.describe(index)} ({error})")
                continue
            sizes[size] += 1
            examples.setdefault(size, encoded.describe(index))
            forms[form] += 1
            grey += colourless
            counter.advance()
    check(
        not broken,
        f"{len(broken):,} of {count:,} images cannot be measured: {some(broken)}; mend or remove "
        "them",
    )
    (width, height), usual = sizes.most_common(1)[0]
    others = ", ".join(f"{examples[size]} has {size[0]}x{size[1]}" for size in list(sizes)[:3])
    check(
        len(sizes) == 1,
        f"the images of {encoded.name} are of {len(sizes)} sizes ({others}); nothing is resized "
        "here, since it would change every figure: make them of one size first",
    )
    if 0 < grey < count:
        log.warning(
            "%s of %s images in %s are grey and are taken as colours with R = G = B",
            *(f"{grey:,}", f"{count:,}", encoded.name),
        )
    lossy = {form: forms[form] for form in LOSSY if forms[form]}
    if lossy:
        log.warning(
            "%s of %s images in %s are of forms that may have lost detail (%s), which a distance "
            "sees too",
            *(f"{sum(lossy.values()):,}", f"{count:,}", encoded.name, ", ".join(lossy)),
        )
    return PictureSet(encoded, (1 if grey == usual else 3, height, width))


def _head(data: bytes) -> tuple[tuple[int, int], str, bool]:
    """Width and height as shown, form, and whether there are no colours."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            size, form, mode = image.size, image.format or "", image.mode
            turned = orientation(image) >= 5
    except Exception:  # perhaps only what lies beside its pixels is damaged
        picture = open_picture(data)
        size, form, mode = picture.image.size, picture.image.format or "", picture.image.mode
        turned = orientation(picture.image) >= 5
    return size[::-1] if turned else size, form, mode in GREY


@dataclass
class SomeOf:
    """Some images of a set, which a seed decides: a set may be sorted by classes.

    Args:
        images: the set.
        count: how many of them.
        seed: decides which.

    Raises:
        DdpmError: the set has not as many.
    """

    images: ImageSet
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        total = len(self.images)
        check(
            self.count <= total,
            f"{self.name} has {total:,} images, and {self.count:,} are asked for (--samples)",
        )
        self.taken = np.zeros(total, dtype=bool)
        self.taken[np.random.default_rng(self.seed).choice(total, self.count, replace=False)] = True

    @property
    def name(self) -> str:
        """See `ImageSet`."""
        return self.images.name

    @property
    def shape(self) -> Shape:
        """See `ImageSet`."""
        return self.images.shape

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """See `ImageSet`."""
        first = 0
        for batch in self.images.batches(size):
            taken = torch.from_numpy(self.taken[first : first + len(batch)])
            first += len(batch)
            if bool(taken.any()):
                yield batch[taken]
