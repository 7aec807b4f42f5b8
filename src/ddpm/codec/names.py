"""The names of the images of a file: relative paths that every system can write, and no other.

A name comes from a file that anybody may have made, and is written to a disk. So it is refused, on
both sides and by the same rule, where it leads out of the folder, names a device, or falls on
another one where a system does not tell capitals from small letters or composes accents.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from ddpm.errors import DdpmError, check

MOST_BYTES = 1 << 26  # of all names of a file
LONGEST = 255  # bytes of each part of a path
# Some that systems forbid, and those that would steer a terminal or turn the text around.
FORBIDDEN = re.compile(
    r'[\x00-\x1f\x7f-\x9f<>:"\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]'
)
DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
ADVICE = "leave the names out with --no-names"


def pack_names(names: Sequence[str]) -> bytes:
    """All names in one stream of zlib's."""
    return zlib.compress("\0".join(names).encode(), 9)


def unpack_names(data: bytes, count: int) -> tuple[str, ...]:
    """The inverse of `pack_names`; whether they may be written is another question.

    Raises:
        DdpmError: it is no stream of so many names.
    """
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, MOST_BYTES).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise DdpmError("the names in the file are damaged; fetch it again") from error
    whole = stream.eof and found.count("\0") == count - 1
    check(whole, "the names in the file are damaged; fetch it again")
    return tuple(found.split("\0"))


def why_not(name: str) -> str | None:
    """What is wrong with a name; None if every system can write it below a folder."""
    parts = name.split("/")
    if name.startswith("/"):
        return "begins at the root of the disk"
    if ".." in parts:
        return "leads out of the folder"
    if "" in parts or "." in parts:
        return "has an empty part"
    if FORBIDDEN.search(name):
        return 'has a character that not every system allows (one of <>:"\\|?*, or none to be seen)'
    if any(part[-1] in ". " for part in parts):
        return "has a part that ends in a full stop or a space"
    if any(DEVICES.fullmatch(part) for part in parts):
        return "is that of a device on some systems"
    if any(len(part.encode()) > LONGEST for part in parts):
        return f"has a part of more than {LONGEST} bytes"
    return None


def folded(name: str) -> str:
    """What two names have in common that some system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def check_names(names: Sequence[str]) -> None:
    """Refuse names that not every system can write side by side below a folder.

    Raises:
        DdpmError: says which, why, and what to do.
    """
    for name in names:
        check(isinstance(name, str), f"names are texts, got {name!r}")
    taken: dict[str, str] = {}
    size = sum(len(name.encode(errors="surrogatepass")) + 1 for name in names)
    check(
        size <= MOST_BYTES,
        f"the names have {size:,} bytes, and a file holds {MOST_BYTES:,}; {ADVICE}",
    )
    for name in names:
        reason = why_not(name)
        check(reason is None, f"the name {name!r} {reason}; rename it, or {ADVICE}")
        other = taken.get(folded(name))
        check(
            other is None,
            f"the names {other!r} and {name!r} are one and the same on some systems; rename one, "
            f"or {ADVICE}",
        )
        taken[folded(name)] = name
    for name in names:
        for parent in PurePosixPath(folded(name)).parents:
            other = taken.get(str(parent))
            check(
                other is None,
                f"{other!r} is the name of an image and of a folder with {name!r} in it; rename "
                f"one, or {ADVICE}",
            )


def written_names(names: Sequence[str]) -> tuple[str, ...]:
    """Where the images go that had these names: as PNGs, whose names keep the old ending only where
    two would fall together.

    Raises:
        DdpmError: see `check_names`.
    """
    check_names(names)
    short = [str(PurePosixPath(name).with_suffix(".png")) for name in names]
    seen: dict[str, int] = {}
    for name in short:
        seen[folded(name)] = seen.get(folded(name), 0) + 1
    out = [
        new if seen[folded(new)] == 1 else f"{name}.png"
        for name, new in zip(names, short, strict=True)
    ]
    check_names(out)
    return tuple(out)
