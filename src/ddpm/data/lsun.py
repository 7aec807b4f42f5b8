"""LSUN as it is distributed: an LMDB folder whose values are WebP or JPEG bytes.

The images are numbered in the order of their keys. LMDB can look up a key but not the n-th one, so
the keys are listed once, in the cache; processes share that list through a memory map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ddpm.data.cache import cached
from ddpm.data.images import ImageSource
from ddpm.data.packed import Packed, write_packed
from ddpm.data.streamed import MEMORY_LIMIT, open_encoded
from ddpm.errors import DdpmError, check

if TYPE_CHECKING:
    import lmdb

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
        handle = lmdb.open(str(folder), readonly=True, create=False, lock=False, readahead=False)
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
        data = folder / "data.mdb"
        # LMDB itself would only notice when it touches a missing page, and die of it.
        needed = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
        size = data.stat().st_size
        check(size >= needed, f"{data} has {size} of {needed} bytes; copy it again")

        def keys() -> Iterator[bytes]:
            with _named(folder), handle.begin() as transaction, transaction.cursor() as cursor:
                yield from cursor.iternext(keys=True, values=False)

        self.keys = Packed(cached("keys", [data], lambda partial: write_packed(partial, keys())))

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


def is_lmdb(folder: Path) -> bool:
    """Whether this is a database's folder."""
    return (folder / "data.mdb").is_file()


def find_databases(folder: Path, split: Literal["train", "test"]) -> list[Path]:
    """The databases of a split in a folder of them, by LSUN's naming: CATEGORY_train_lmdb."""
    ending = {"train": "_train_lmdb", "test": "_val_lmdb"}[split]
    return sorted(path for path in folder.glob(f"*{ending}") if is_lmdb(path))


def lmdb_images(
    folder: Path, image_size: int, channels: int, memory_limit: int = MEMORY_LIMIT
) -> ImageSource:
    """All images of one database.

    Raises:
        DdpmError: the database cannot be read or is empty, or more than 1% of it is broken.
    """
    return open_encoded(LmdbImages(folder, folder.name), image_size, channels, memory_limit)
