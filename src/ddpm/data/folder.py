"""A folder of image files, of any depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddpm.data.images import ImageSource
from ddpm.data.listing import list_folder, readable_kinds
from ddpm.data.streamed import MEMORY_LIMIT, open_encoded
from ddpm.errors import DdpmError, check


@dataclass
class ImageFiles:
    """The bytes of image files."""

    paths: list[Path]
    name: str

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> bytes:
        try:
            return self.paths[index].read_bytes()
        except OSError as error:
            raise DdpmError(
                f"cannot read {self.paths[index]} ({error.strerror}); put it back and resume"
            ) from error

    def describe(self, index: int) -> str:
        """The file's path."""
        return str(self.paths[index])


def image_folder(
    folder: Path, image_size: int, channels: int, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """All image files under `folder`, whatever their folders are called.

    Raises:
        DdpmError: the folder holds no image, or more than 1% of them are broken.
    """
    paths = [Path(name) for name in list_folder(folder).images]
    check(len(paths) > 0, no_images(folder))
    encoded = ImageFiles(paths, folder.name)
    return open_encoded(encoded, image_size, channels, memory_limit)


def no_images(folder: Path) -> str:
    """What is said of a folder without any."""
    kinds = ", ".join(sorted(readable_kinds()))
    return f"{folder} holds no images; it needs files ending in {kinds}"
