"""What a file is that cannot be read as images, and what a user can do about it."""

from __future__ import annotations

import re
from pathlib import Path

from ddpm.data.listing import UNREAD
from ddpm.errors import DdpmError

HEAD = 512  # bytes that tell what a file is
LFS = b"version https://git-lfs"
TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".md")
ADVICE: dict[tuple[str, ...], tuple[str, str]] = {
    (".h5", ".hdf5", ".hdf"): ("an HDF5 file", "write its images to an .npz or to PNG files"),
    (".mat",): ("a MATLAB file", "write its images to an .npz or to PNG files"),
    (".tfrecord", ".tfrecords"): ("a TFRecord file", "write its images to PNG files"),
    (".rec", ".beton"): ("a file of another training library", "write its images to PNG files"),
    (".7z", ".rar", ".xz", ".bz2", ".zst"): ("an archive of a kind that is not read", "unpack it"),
    (".pt", ".pth", ".pkl", ".pickle"): (
        "a pickle, which could run code when it is read",
        "write its images to an .npz or to PNG files",
    ),
    (".safetensors",): ("a file of weights", "name the images instead"),
    (".zip", ".tar", ".tgz", ".gz"): (
        "an archive that is damaged or holds something else",
        "copy or download it again, or unpack it",
    ),
    TEXTS: (
        "a text file",
        "name the folder of the images that it lists",
    ),
    (".mp4", ".avi", ".mov", ".mkv", ".webm"): ("a video", "write its frames to PNG files"),
    (".part", ".crdownload", ".partial", ".tmp"): ("an unfinished download", "download it again"),
    tuple(UNREAD.split(" ")): ("an image of a kind that is not read", "convert it to PNG"),
    (".arrow",): ("an Arrow file", "write it as Parquet (datasets: to_parquet)"),
}


def what_it_is(path: Path) -> tuple[str, str] | None:
    """What a file is, from its first bytes, and what to do; None if they do not tell."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return what_bytes_are(head)


def what_bytes_are(head: bytes) -> tuple[str, str] | None:
    """The same for the beginning of a file."""
    if not head:
        return "an empty file", "copy or download it again"
    if head.startswith(LFS):
        return (
            "a git-LFS pointer and not the file itself",
            "fetch the file with `git lfs pull`",
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    page = text.startswith((b"<!doctype html", b"<html"))
    if page or (text.startswith((b"<?xml", b"<!--")) and b"<svg" not in text):
        return "a web page that was saved in place of the file", "download it again"
    return None


def check_genuine(path: Path) -> None:
    """Refuse a file in whose place there is something else.

    Raises:
        DdpmError: it is empty, a web page or a git-LFS pointer, or cannot be read.
    """
    try:
        found = what_it_is(path)
    except OSError as error:
        raise DdpmError(f"cannot read {path} ({error.strerror})") from error
    if found is not None:
        raise DdpmError(f"{path} is {found[0]}; {found[1]}")


def _suffix(path: Path) -> str:
    """The ending of a name, also of one part of many: x.tfrecord-00000-of-00010."""
    return re.sub(r"-\d+-of-\d+$", "", path.suffix.lower())


def is_foreign(path: Path) -> bool:
    """Whether a file may hold images of a kind that is not read."""
    suffix = _suffix(path)
    return suffix not in TEXTS and any(suffix in suffixes for suffixes in ADVICE)


def refusal(path: Path) -> DdpmError:
    """The sentence for a file that holds no images which can be read."""
    check_genuine(path)
    what, advice = next(
        (said for suffixes, said in ADVICE.items() if _suffix(path) in suffixes),
        ("no set of images that can be read", "name a folder of images, or see docs/data.md"),
    )
    return DdpmError(f"{path} is {what}; {advice}")
