"""A list of byte strings in one file: any of them can be read without loading the others.

Layout: the strings one after another; where each begins and the last ends, as little-endian int64;
how many there are, as int64.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ddpm.errors import check

WORD = 8  # bytes of an int64


def write_packed(path: Path, items: Iterable[bytes]) -> None:
    """Write `items` to `path`, holding only one of them and the offsets in memory."""
    offsets = array("q", [0])
    with path.open("wb") as file:
        for item in items:
            file.write(item)
            offsets.append(offsets[-1] + len(item))
        offsets.append(len(offsets) - 1)
        file.write(np.asarray(offsets, dtype="<i8").tobytes())


class Packed:
    """The strings of a file by `write_packed`, memory-mapped: processes share one copy.

    Raises:
        DdpmError: the file is not complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        intact = size >= 2 * WORD
        if intact:
            self._bytes = np.memmap(path, np.uint8, "r")
            count = int(self._bytes[-WORD:].view("<i8")[0])
            intact = 0 <= count <= size // WORD - 2
        if intact:
            self._offsets = self._bytes[-WORD * (count + 2) : -WORD].view("<i8")
            intact = int(self._offsets[-1]) + WORD * (count + 2) == size
        check(intact, f"{path} is damaged; delete it and it will be rebuilt")

    def __reduce__(self) -> tuple[type[Packed], tuple[Path]]:
        return Packed, (self.path,)  # another process maps the file anew

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        start, stop = self._offsets[index], self._offsets[index + 1]
        return self._bytes[start:stop].tobytes()
