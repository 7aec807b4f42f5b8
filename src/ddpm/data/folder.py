"""A folder of image files, of any depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddpm.data.images import ImageSource
from ddpm.data.streamed import MEMORY_LIMIT, open_encoded
from ddpm.errors import DdpmError, check

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


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
    return open_encoded(ImageFiles(paths, folder.name), image_size, channels, memory_limit)
