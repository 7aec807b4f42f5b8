"""Images in an .npz or .npy, read a batch at a time whether it is compressed or not."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import Shape
from ddpm.errors import DdpmError, check

USUAL = ("arr_0", "images", "samples", "x")  # what arrays of images are called
ERRORS = (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class Header:
    """What an array says before its numbers."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def is_images(self) -> bool:
        """Whether it is uint8 [n, h, w, c], [n, c, h, w] or [n, h, w]."""
        if self.dtype != np.uint8 or self.fortran or min(self.shape, default=0) == 0:
            return False
        if len(self.shape) == 3:  # [h, w, 3] is a single image
            return self.shape[2] not in (3, 4)
        return len(self.shape) == 4 and (self.shape[3] in (1, 3) or self.shape[1] in (1, 3))


class ArrayFile:
    """The images of a file: `arr_0` as the field has it, or the only array of images.

    Args:
        path: an .npz or .npy.

    Raises:
        DdpmError: it is damaged, or holds no array of images, or several.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        headers = self._headers()
        found = {header.name: header for header in headers if header.is_images}
        seen = [
            f"{h.name} ({h.dtype} {list(h.shape)}{', in Fortran order' * h.fortran})"
            for h in headers
        ]
        check(
            bool(found),
            f"{path} holds no images but {', '.join(seen) or 'nothing'}; images are uint8 "
            "arrays [n, height, width, channels] (1 or 3 of them) of grey levels 0..255, in C "
            "order (np.ascontiguousarray)",
        )
        named = [name for name in USUAL if name in found] or list(found)
        check(
            len(found) == 1 or named[0] in USUAL,
            f"{path} holds several arrays of images ({', '.join(found)}); call the one that is "
            "meant arr_0",
        )
        self.header = found[named[0]]
        shape = self.header.shape
        self.channels_first = len(shape) == 4 and shape[3] not in (1, 3)
        if len(shape) == 3:
            self.shape: Shape = (1, shape[1], shape[2])
        elif self.channels_first:
            self.shape = (shape[1], shape[2], shape[3])
        else:
            self.shape = (shape[3], shape[1], shape[2])

    def __len__(self) -> int:
        return self.header.shape[0]

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """All images, at most `size` at a time.

        Raises:
            DdpmError: the file is damaged.
        """
        inner = self.header.shape[1:]
        each = int(np.prod(inner))
        with self._damage(), self._open(self.header.name) as file:
            _read_header(file, self.header.name)
            for first in range(0, len(self), size):
                count = min(size, len(self) - first)
                data = file.read(count * each)
                check(
                    len(data) == count * each, f"{self.path} is damaged: it ends before its images"
                )
                images = np.frombuffer(bytearray(data), np.uint8).reshape(count, *inner)
                if len(inner) == 2:
                    images = images[:, None]
                elif not self.channels_first:
                    images = images.transpose(0, 3, 1, 2)
                yield torch.from_numpy(np.ascontiguousarray(images))
            file.read(1)  # at its end a member of an archive is compared with its checksum

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        """An array's bytes."""
        if self.path.suffix.lower() == ".npy":
            with self.path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
            yield member

    def _headers(self) -> list[Header]:
        """Of all arrays, none of which is read."""
        with self._damage():
            if self.path.suffix.lower() == ".npy":
                names = [self.path.stem]
            else:
                with zipfile.ZipFile(self.path) as archive:
                    members = [n for n in archive.namelist() if n.endswith(".npy")]
                names = [name.removesuffix(".npy") for name in members]
            found = []
            for name in names:
                with self._open(name) as file:
                    found.append(_read_header(file, name))
            return found

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Whatever a damaged file raises, in one sentence."""
        try:
            yield
        except DdpmError:
            raise
        except ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            raise DdpmError(f"{self.path} cannot be read as NumPy arrays ({reason})") from error


def _read_header(file: Any, name: str) -> Header:
    """What stands before an array's numbers."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"{name} is of version {version} of the format")
    shape, fortran, dtype = read(file)
    return Header(name, dtype, tuple(shape), bool(fortran) and len(shape) > 1)
