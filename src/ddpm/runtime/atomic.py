"""Files that are written whole or not at all, and the room that they need."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from ddpm.errors import DdpmError, check

ADVICE = "free some space or choose another place"
LONG = 200  # bytes of a name that leave room for what a partial file's name has besides


def free_bytes(path: Path) -> int:
    """Bytes that are free where `path` is or would be.

    Raises:
        DdpmError: there is no such drive.
    """
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        return shutil.disk_usage(there).free
    except OSError as error:
        raise _unwritable(path, error) from error


def format_bytes(size: int) -> str:
    """A number of bytes for people: 571.2 MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def check_free_space(path: Path, needed: int) -> None:
    """Refuse to begin writing `needed` bytes to `path` where less is free.

    A quota is not seen here; then the write itself fails, and leaves nothing half-written.

    Raises:
        DdpmError: says how much is needed and how much is free.
    """
    free = free_bytes(path)
    check(
        free >= needed,
        f"cannot write {path} (it needs {format_bytes(needed)} and {format_bytes(free)} are free); "
        f"{ADVICE}",
    )


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` survive a loss of power, as fsync does for a file's contents.

    Some network file systems cannot do that for a folder, and Windows not at all; there it is left
    to them.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and a folder may be write-only
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def atomically(
    path: Path, write: Callable[[Path], object], advice: str = ADVICE, replace: bool = True
) -> None:
    """Let `write` fill a file beside `path`, then rename it into place.

    Args:
        path: the file, whose folder is made if need be.
        write: fills the file at the path that it is given.
        advice: what a user can do if that fails.
        replace: what is there already.

    Raises:
        DdpmError: no space, or no permission to write there, or something is there that is not to
            be replaced; nothing half-written is left.
    """
    partial = path.with_name(f".{_short(path.name)}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = (path if path.exists() else partial).stat().st_mode
        write(partial)
        with contextlib.suppress(OSError):  # some file systems have no modes
            partial.chmod(mode)  # safetensors would let nobody else read the file
        with partial.open("rb+") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        if replace:
            partial.replace(path)
        else:
            _place(partial, path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DdpmError(f"cannot write {path} ({reason}); {advice}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already, or could never be made
            partial.unlink()


def _short(name: str) -> str:
    """A name, or if it is long, its beginning and a digest."""
    whole = os.fsencode(name)
    if len(whole) <= LONG:
        return name
    return f"{name[:30]}-{hashlib.blake2b(whole, digest_size=12).hexdigest()}"


def _place(partial: Path, path: Path) -> None:
    """Give a file its name unless something has it, also if another process makes that just now.

    Raises:
        DdpmError: something has it.
    """
    there = f"{path} is there already and is not overwritten; choose another place"
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise DdpmError(there) from error
    except OSError:  # a file system without hard links
        check(not os.path.lexists(path), there)
        partial.replace(path)


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader takes: what is no finite number becomes null."""

    def plain(part: object) -> object:
        if isinstance(part, dict):
            return {key: plain(inner) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [plain(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(plain(value), indent=indent, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, atomically; see `atomically`."""
    atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def check_writable(folder: Path) -> None:
    """See that files can be written in `folder`, before hours are spent on one, and leave no trace:
    a folder that is not there yet is not made, since a command may still be refused.

    Raises:
        DdpmError: they cannot.
    """
    try:
        _try_file(_there(folder))
    except OSError as error:
        raise _unwritable(folder, error) from error


def make_folder(folder: Path) -> None:
    """Make `folder`, and see that files can be written in it.

    Raises:
        DdpmError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_file(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _there(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there."""
    there = folder.absolute()
    while True:
        try:
            there.lstat()  # a link to nothing is in the way of a folder
            return there
        except FileNotFoundError:
            if there == there.parent:  # a drive of Windows that is not there
                raise
            there = there.parent


def _try_file(folder: Path) -> None:
    tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-").close()


def _unwritable(path: Path, error: OSError) -> DdpmError:
    return DdpmError(f"cannot write {path} ({error.strerror or error}); {ADVICE}")
