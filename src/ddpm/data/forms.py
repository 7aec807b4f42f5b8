"""The forms in which sets of images travel: what a path holds, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddpm.data.archives import Joined, is_archive, list_archive, open_archive
from ddpm.data.arrays import Arrays, idx_arrays, is_idx, npz_arrays, together
from ddpm.data.folder import ImageFiles, no_images
from ddpm.data.foreign import check_genuine, is_foreign, refusal
from ddpm.data.images import EncodedImages
from ddpm.data.listing import (
    UNREAD,
    Listing,
    list_folder,
    list_names,
    readable_kinds,
    reason_to_leave_out,
    reasons,
    walk,
)
from ddpm.data.lsun import LmdbImages, data_file, databases_among, is_lmdb
from ddpm.data.parquet import has_images, parquet_rows
from ddpm.errors import DdpmError, check


@dataclass
class Found:
    """Encoded images that a path names.

    Args:
        path: as it was named.
        listing: of the images, or of the files that hold many.
        open: makes a set out of those of some names, with a name of its own.
        files: by which it can be seen whether they have changed.
        single: whether each name of the listing is one image.
    """

    path: Path
    listing: Listing
    open: Callable[[list[str], str], EncodedImages]
    files: list[Path]
    single: bool


def look_at_file(path: Path, image_size: int, channels: int) -> Found | Arrays:
    """What a single file, or a database that is a folder, holds.

    Raises:
        DdpmError: no images; says what it is.
    """
    kind = path.suffix.lower()
    check_genuine(path)
    if is_lmdb(path):
        return _databases(path, [path])
    if kind == ".parquet":
        return _parquet(path, [path], image_size, channels)
    if kind in (".npz", ".npy"):
        return npz_arrays(path)
    if is_idx(path):
        return idx_arrays(path, [path])
    if is_archive(path):
        return _archives(path, [path])
    if kind in readable_kinds():
        found = list_names([(str(path), [("", path.name.lstrip("."))])])
        return Found(path, found, _open_files, [path], single=True)
    raise refusal(path)


def look_into_folder(folder: Path, image_size: int, channels: int) -> Found | Arrays:
    """What a folder holds: databases, Parquet, idx files or images; else archives or arrays."""
    below = sorted(path for path in walk(folder) if _counts(path, folder))
    databases, images = databases_among(below), list_folder(folder)
    # A database in a folder of its own is LSUN's; a file may lie beside images for another end.
    if databases and (not images.images or any(path.is_dir() for path in databases)):
        found = _databases(folder, databases)
        found.listing.left_out["image files beside a database"] = len(images.images)
        return found
    files = [path for path in below if path.suffix.lower() == ".parquet"]
    idx = [path for path in below if is_idx(path)]
    if files and not (images.images and not any(map(has_images, files))):
        found = _parquet(folder, files, image_size, channels)
        found.listing.left_out["image files beside Parquet"] = len(images.images)
        return found
    if idx:
        arrays = idx_arrays(folder, idx)
        arrays.others += images.images
        return arrays
    if images.images:
        return Found(folder, images, _open_files, [Path(n) for n in images.images], single=True)
    packed = [path for path in below if is_archive(path)]
    plain = [path for path in below if path.suffix.lower() in (".npz", ".npy")]
    check(
        not (packed and plain),
        f"{folder} holds {', '.join(path.name for path in packed + plain)}; name one of them",
    )
    if packed:
        return _archives(folder, packed)
    if plain:
        return together(folder, [npz_arrays(path) for path in plain])
    for path in below:
        check_genuine(path)
        if is_foreign(path) and path.suffix.lower() not in UNREAD.split(" "):
            raise refusal(path)
    raise DdpmError(no_images(folder) + reasons(images.left_out))


def _counts(path: Path, folder: Path) -> bool:
    """Whether a file below a folder is neither hidden nor the system's."""
    names = path.relative_to(folder).parts
    return reason_to_leave_out((*names, "x.png")) is None and path.is_file()


def _open_files(names: list[str], name: str) -> EncodedImages:
    """Image files."""
    return ImageFiles([Path(path) for path in names], name)


def _files(path: Path, files: list[Path]) -> Listing:
    """Files that hold many images each, which go by the names below the path."""
    return Listing({str(file): [(*file.relative_to(path).parts, "")] for file in files})


def _parquet(path: Path, files: list[Path], image_size: int, channels: int) -> Found:
    """Parquet files."""

    def open_rows(names: list[str], name: str) -> EncodedImages:
        return parquet_rows([Path(n) for n in names], image_size, channels, name)

    for file in files:
        check_genuine(file)
    return Found(path, _files(path, files), open_rows, files, single=False)


def _databases(path: Path, databases: list[Path]) -> Found:
    """LMDB databases, of which LSUN has one a category and split."""

    def open_one(names: list[str], _: str) -> EncodedImages:
        check(
            len(names) == 1,
            f"{path} holds {', '.join(Path(n).name for n in names)}; name one of them, or move one "
            "category to a folder of its own",
        )
        return LmdbImages(Path(names[0]), Path(names[0]).name)

    files = [data_file(database) for database in databases]
    return Found(path, _files(path, databases), open_one, files, single=False)


def _archives(path: Path, files: list[Path]) -> Found:
    """Zip and tar archives."""
    members: dict[str, tuple[Path, str]] = {}
    joined = Listing()
    for file in files:
        listed = list_archive(file)
        if not listed.images and file != path:
            joined.left_out["archives without images"] += 1
        for member, ways in listed.images.items():
            key = f"{file}/{member}"
            members[key] = file, member
            # The name of an archive counts like that of a folder, unless it is what was named.
            above = file.relative_to(path).parts if file != path else ()
            joined.images[key] = [(*above, *way) for way in ways]
        joined.left_out.update(listed.left_out)
        joined.endings |= listed.endings

    def open_members(names: list[str], name: str) -> EncodedImages:
        parts = []
        for file in files:
            wanted = [members[key][1] for key in names if members[key][0] == file]
            if wanted:
                parts.append(open_archive(file, wanted, name))
        return parts[0] if len(parts) == 1 else Joined(parts, name)

    inside = ", ".join(sorted(joined.endings)[:5]) or "nothing"
    check(
        bool(joined.images),
        f"{path} holds no images but {inside}; unpack it and name what is inside",
    )
    return Found(path, joined, open_members, files, single=True)
