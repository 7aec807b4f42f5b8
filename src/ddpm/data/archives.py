"""Images in a zip or tar archive, read without unpacking it."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ddpm.data.cache import cached
from ddpm.data.decode import BrokenImage
from ddpm.data.images import EncodedImages
from ddpm.data.listing import Listing, list_names
from ddpm.data.packed import Packed, write_packed
from ddpm.errors import DdpmError, check

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError)

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

# This process's open archives: a handle that a fork has copied would move under both.
_handles: dict[Path, tuple[int, zipfile.ZipFile]] = {}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with an archive becomes a sentence that names it."""
    try:
        yield
    except DdpmError:
        raise
    except (*BROKEN, KeyError, NotImplementedError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DdpmError(f"cannot read the archive {path} ({reason}); copy it again") from error


@dataclass
class _Members:
    """Files in an archive, in an order of their own."""

    path: Path
    members: list[str]
    name: str

    def __len__(self) -> int:
        return len(self.members)

    def describe(self, index: int) -> str:
        """The member and the archive."""
        return f"{self.members[index]} of {self.path}"


@dataclass
class ZipImages(_Members):
    """Members of a zip archive, stored or compressed."""

    def __getitem__(self, index: int) -> bytes:
        process, handle = _handles.get(self.path, (0, None))
        with _named(self.path):
            if handle is None or process != os.getpid():
                handle = zipfile.ZipFile(self.path)
                _handles[self.path] = os.getpid(), handle
            try:
                return handle.read(self.members[index])
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # of this member alone
                raise BrokenImage(str(error)) from error


@dataclass
class TarImages(_Members):
    """Members of a tar archive, as stretches of a file that is not compressed."""

    places: list[tuple[int, int]]

    def __getitem__(self, index: int) -> bytes:
        offset, size = self.places[index]
        with _named(self.path), self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass
class UnpackedImages(_Members):
    """Members of a compressed tar archive, unpacked once into the cache."""

    cells: Packed
    indices: list[int]

    def __getitem__(self, index: int) -> bytes:
        return self.cells[self.indices[index]]


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its name and by its content."""
    return is_tar(path) or (path.suffix.lower() == ".zip" and zipfile.is_zipfile(path))


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not."""
    return path.name.lower().endswith(TARS) and _opens(path)


def _opens(path: Path) -> bool:
    return path.stat().st_size > 0 and tarfile.is_tarfile(path)


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a member; some archives from Windows have backslashes."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _listing(names: list[str]) -> Listing:
    """The images among the members of an archive."""
    return list_names([(name, [_parts(name)]) for name in names])


def list_archive(path: Path) -> Listing:
    """The images of a zip or tar archive.

    Raises:
        DdpmError: it is damaged or encrypted.
    """
    with _named(path):
        if is_tar(path):
            with tarfile.open(path) as tar:
                return _listing([member.name for member in tar if member.isfile()])
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
        check(
            not any(info.flag_bits & 1 for info in members),
            f"{path} is encrypted; unpack it with its password",
        )
        return _listing([info.filename for info in members])


def open_archive(path: Path, members: list[str], name: str) -> EncodedImages:
    """Members of an archive; those of a compressed tar archive are unpacked into the cache."""
    if not is_tar(path):
        _handles.pop(path.resolve(), None)  # of a file that may have been written anew
        return ZipImages(path.resolve(), members, name)
    return _open_tar(path, members, name)


@dataclass
class Joined:
    """Several sets, one after the other."""

    parts: list[EncodedImages]
    name: str

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def _find(self, index: int) -> tuple[EncodedImages, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def __getitem__(self, index: int) -> bytes:
        part, inside = self._find(index)
        return part[inside]

    def describe(self, index: int) -> str:
        """See `EncodedImages`."""
        part, inside = self._find(index)
        return part.describe(inside)


def is_compressed(path: Path) -> bool:
    """Whether a tar archive is compressed, whatever its name says."""
    try:
        with tarfile.open(path, "r:"):
            return False
    except tarfile.TarError:
        return True


def _open_tar(path: Path, members: list[str], name: str) -> EncodedImages:
    """Members of a tar archive."""
    with _named(path), tarfile.open(path) as archive:
        # Of a member that was added again, the last one counts.
        everything = {member.name: member for member in archive if member.isfile()}
        found = [everything[name] for name in members]
        plain = not is_compressed(path) and not any(m.issparse() for m in found)
    if plain:
        places = [(member.offset_data, member.size) for member in found]
        return TarImages(path.resolve(), members, name, places)

    def contents() -> Iterator[bytes]:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield file.read()

    with _named(path):
        cells = Packed(
            cached("unpacked", [path], lambda partial: write_packed(partial, contents()))
        )
        with tarfile.open(path) as archive:
            order = {m.name: i for i, m in enumerate(m for m in archive if m.isfile())}
    return UnpackedImages(path, members, name, cells, [order[member] for member in members])
