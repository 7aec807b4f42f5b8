"""A folder of images, of any depth: in memory when small, streamed from disk when big."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.decode import BROKEN, decode_image, map_skipping_broken
from ddpm.data.images import ImageSource, MemoryImages, Shape
from ddpm.errors import DdpmError, check

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MEMORY_LIMIT = 2 * 2**30  # bytes of pixels up to which a set is held in memory


@dataclass
class StreamedImages:
    """A big folder, decoded image by image when asked for."""

    paths: list[Path]
    image_size: int
    channels: int
    name: str
    grey_levels: int = 256

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        return self.channels, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> UInt8[Tensor, "c h w"]:
        """One image; a file that broke since it was listed stops the run with its name."""
        try:
            return decode_image(self.paths[index], self.image_size, self.channels)
        except BROKEN as error:
            raise DdpmError(
                f"cannot read {self.paths[index]} ({error}); remove it and resume"
            ) from error

    def __getitem__(self, indices: Tensor) -> UInt8[Tensor, "b c h w"]:
        return torch.stack([self.read(int(i)) for i in indices])


def _check_header(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.tensor(image.size)


def list_images(folder: Path) -> list[Path]:
    """Every image file under `folder`, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_folder(
    folder: Path, image_size: int, channels: int, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """All PNG, JPEG, WebP and BMP files under `folder`.

    Raises:
        DdpmError: the folder holds no image, or more than 1% of them are broken.
    """
    paths = list_images(folder)
    check(
        len(paths) > 0,
        f"{folder} holds no images; it needs files ending in {', '.join(sorted(SUFFIXES))}",
    )
    if len(paths) * image_size**2 * channels <= memory_limit:
        images = map_skipping_broken(
            lambda path: decode_image(path, image_size, channels), paths, str
        )
        return MemoryImages(torch.stack(images), name=folder.name)
    readable: list[Path] = []

    def note(path: Path) -> Tensor:
        size = _check_header(path)
        readable.append(path)
        return size

    map_skipping_broken(note, paths, str)
    return StreamedImages(sorted(readable), image_size, channels, folder.name)
