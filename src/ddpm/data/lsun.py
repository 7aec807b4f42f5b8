"""LMDB databases, as LSUN is distributed: their values are WebP, JPEG or PNG bytes.

A database is a folder with a `data.mdb`, or a single file. Keys that count the images are none.

The images are numbered in the order of their keys. LMDB can look up a key but not the n-th one, so
the keys are listed once, in the cache; processes share that list through a memory map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm.data.cache import cached
from ddpm.data.images import ImageSource
from ddpm.data.packed import Packed, write_packed
from ddpm.data.streamed import MEMORY_LIMIT, open_encoded
from ddpm.errors import DdpmError, check

if TYPE_CHECKING:
    import lmdb

MAGIC = (0xBEEFC0DE).to_bytes(4, "little")  # of an LMDB file
NO_IMAGES = frozenset(
    (b"length", b"__len__", b"__keys__", b"num_samples", b"num_images", b"size", b"count", b"keys")
)

# This process's open databases. LMDB allows one handle of a database in a process, and none may
# be used that a fork has copied: the number is the process that opened it.
_handles: dict[Path, tuple[int, lmdb.Environment]] = {}


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """What LMDB says of a damaged database becomes a sentence that names it."""
    try:
        import lmdb
    except ImportError as error:
        raise DdpmError("reading LSUN needs lmdb; pip install lmdb") from error
    try:
        yield
    except lmdb.Error as error:
        raise DdpmError(f"the database {folder} is damaged ({error}); copy it again") from error


def _reopen(folder: Path) -> lmdb.Environment:
    """A new read-only handle in place of the old one; takes no lock and writes nothing."""
    with _named(folder):
        import lmdb

        if folder in _handles:
            _handles.pop(folder)[1].close()
        handle = lmdb.open(
            str(folder),
            subdir=folder.is_dir(),
            readonly=True,
            create=False,
            lock=False,
            readahead=False,
        )
    _handles[folder] = os.getpid(), handle
    return handle


def _handle(folder: Path) -> lmdb.Environment:
    """This process's handle."""
    process, handle = _handles.get(folder, (0, None))
    return handle if handle is not None and process == os.getpid() else _reopen(folder)


class LmdbImages:
    """The values of an LMDB database, numbered in the order of their keys.

    Raises:
        DdpmError: lmdb is not installed, or the database is truncated or is none.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder.resolve(), name
        handle = _reopen(self.folder)
        data = data_file(folder)
        # LMDB itself would only notice when it touches a missing page, and die of it.
        needed = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
        size = data.stat().st_size
        check(size >= needed, f"{data} has {size} of {needed} bytes; copy it again")

        def keys() -> Iterator[bytes]:
            with _named(folder), handle.begin() as transaction, transaction.cursor() as cursor:
                for key in cursor.iternext(keys=True, values=False):
                    if key.lower().replace(b"-", b"_") not in NO_IMAGES:
                        yield key

        self.keys = Packed(
            cached("image-keys", [data], lambda partial: write_packed(partial, keys()))
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> bytes:
        with _named(self.folder), _handle(self.folder).begin() as transaction:
            value = transaction.get(self.keys[index])
        if value is None:
            raise DdpmError(
                f"{self.describe(index)} has disappeared; it must not change while it is read"
            )
        return value

    def describe(self, index: int) -> str:
        """The key and the database."""
        return f"image {self.keys[index].decode(errors='replace')} of {self.folder}"


def data_file(path: Path) -> Path:
    """The file of a database that is a folder, or is that file itself."""
    return path / "data.mdb" if path.is_dir() else path


def is_lmdb(path: Path) -> bool:
    """Whether this is a database: a folder of one, or a file of that name with a whole page."""
    if path.is_dir():
        return (path / "data.mdb").is_file()
    if path.name == "lock.mdb" or path.suffix.lower() not in (".lmdb", ".mdb"):
        return False
    with path.open("rb") as file:
        return path.name == "data.mdb" or MAGIC in file.read(20)


def databases_among(files: list[Path]) -> list[Path]:
    """The databases among files; one whose file is a `data.mdb` goes by its folder."""
    found = [path for path in files if is_lmdb(path)]
    return sorted({path.parent if path.name == "data.mdb" else path for path in found})


def lmdb_images(
    path: Path, image_size: int, channels: int, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """All images of one database.

    Raises:
        DdpmError: the database cannot be read or is empty, or more than 1% of it is broken.
    """
    return open_encoded(LmdbImages(path, path.name), image_size, channels, memory_limit)
