"""What counts as an image of a folder: one rule for training, measuring and compressing.

Every file of a readable kind below the folder counts, links are followed once, and whatever is left
out is counted by its reason, so that nothing is passed over in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from PIL import Image

from ddpm.errors import DdpmError

KINDS = (
    ".png .apng .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .tif .tiff .gif .avif "
    ".ppm .pgm .pbm .pnm"
)
# Images all the same, which are counted under their own names.
UNREAD = (
    ".heic .heif .jxl .svg .svgz .psd .exr .hdr .raw .cr2 .cr3 .nef .arw .dng .orf .rw2 .xcf .ico "
    ".tga .jp2 .j2k .eps .ai .pcx .qoi .avif .avifs"
)
SYSTEM = frozenset(
    name.lower()
    for name in (
        "@eaDir",
        "__MACOSX",
        "#recycle",
        "$RECYCLE.BIN",
        "@Recycle",
        "lost+found",
        "System Volume Information",
    )
)
Ways = list[tuple[str, ...]]


@cache
def readable_kinds() -> frozenset[str]:
    """The endings of image files that Pillow reads here."""
    Image.init()
    known = Image.registered_extensions()
    return frozenset(kind for kind in KINDS.split(" ") if known.get(kind) in {*Image.OPEN, "MPO"})


@dataclass
class Listing:
    """The images of a folder or an archive.

    Args:
        images: their names, sorted, with every way to each (see `splits.divide`).
        left_out: what else was found, counted by its reason.
        unread: the names of the images among it whose kind is not read.
        endings: those of other files.
    """

    images: dict[str, Ways] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    endings: set[str] = field(default_factory=set)


def reason_to_leave_out(names: tuple[str, ...]) -> str | None:
    """Why a file is no image, from the names of the folders it is in and its own.

    Of what is hidden, only images are worth a word: for anything else the reason is empty.
    """
    kind = PurePosixPath(names[-1]).suffix.lower()
    image = kind in readable_kinds() or kind in UNREAD.split(" ")
    if any(name.lower() in SYSTEM for name in names):
        return "system" if image else ""
    if any(name.startswith(".") for name in names):
        return "hidden" if image else ""
    if kind in readable_kinds():
        return None
    return kind if image else "other files"


def list_names(files: Iterable[tuple[str, Ways]]) -> Listing:
    """The images among files.

    Args:
        files: the name of each and the ways to it; a file of several names appears once.
    """
    listing = Listing()
    for name, ways in sorted(files, key=lambda file: PurePosixPath(file[0])):
        reason = reason_to_leave_out(ways[0])
        if reason is None:
            listing.images[name] = ways
        elif reason:
            listing.left_out[reason] += 1
            listing.endings.add(PurePosixPath(name).suffix.lower() or PurePosixPath(name).name)
            if reason.startswith("."):
                listing.unread.append(name)
    return listing


def list_folder(folder: Path) -> Listing:
    """The image files below a folder; each file once, however many links lead to it.

    Raises:
        DdpmError: a folder cannot be listed.
    """
    left_out: Counter[str] = Counter()
    found: dict[Path, list[Path]] = {}  # every name of a file, by where it really is
    root = folder.resolve()
    aliases: list[tuple[Path, Path]] = []
    for path in walk(folder, aliases):
        if path.is_file():
            found.setdefault(path.resolve(), []).append(path)
        elif reason_to_leave_out(path.relative_to(folder).parts) is None:
            left_out["not files" if path.exists() else "broken links"] += 1
    files: list[tuple[str, Ways]] = []
    for real, paths in found.items():
        ways = [path.relative_to(folder).parts for path in paths]
        good = [i for i, names in enumerate(ways) if reason_to_leave_out(names) is None]
        first = good[0] if good else 0
        left_out["second names of a file"] += max(len(good) - 1, 0)
        ways.insert(0, ways.pop(first))
        if real.is_relative_to(root):
            ways.append(real.relative_to(root).parts)
        for target, name in aliases:
            if real.is_relative_to(target):
                ways.append((name / real.relative_to(target)).relative_to(folder).parts)
        files.append((str(paths[first]), ways))
    listing = list_names(files)
    listing.left_out.update(left_out)
    return listing


def walk(folder: Path, aliases: list[tuple[Path, Path]] | None = None) -> Iterator[Path]:
    """Everything below a folder that is no folder; one that several links lead to is entered once.

    Of the ways to it a real one comes before links, and any before hidden ones.

    Args:
        folder: where to begin.
        aliases: is told the other ways: where a folder really is, and what else it is called.

    Raises:
        DdpmError: a folder cannot be listed.
    """
    seen: set[Path] = set()
    waiting: tuple[list[Path], ...] = ([folder], [], [])
    while any(waiting):
        current = next(paths for paths in waiting if paths).pop(0)
        real = current.resolve()
        if real in seen:
            if aliases is not None:
                aliases.append((real, current))
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
            for entry in entries:
                path = Path(entry.path)
                if not path.is_dir():
                    yield path
                    continue
                names = path.relative_to(folder).parts
                hidden = reason_to_leave_out((*names, "x.png")) is not None
                waiting[2 if hidden else int(entry.is_symlink())].append(path)
        except OSError as error:
            where = error.filename or current
            raise DdpmError(f"cannot read the folder {where} ({error.strerror})") from error


def kinds(names: Iterable[str]) -> str:
    """How many there are of each kind: "48 png, 12 tif"."""
    counted = Counter(PurePosixPath(name).suffix.lower().lstrip(".") for name in names)
    return ", ".join(f"{count:,} {kind}" for kind, count in counted.most_common())


def reasons(left_out: Counter[str]) -> str:
    """What was left out, for the end of a sentence: "; left out 5: 4 hidden, 1 .heic"."""
    found = [(reason, count) for reason, count in left_out.most_common() if count]
    if not found:
        return ""
    total = sum(count for _, count in found)
    return f"; left out {total:,}: " + ", ".join(f"{count:,} {reason}" for reason, count in found)
