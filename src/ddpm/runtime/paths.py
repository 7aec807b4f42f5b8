"""Paths as users give them: with a tilde, missing, forbidden, or a link to nowhere."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from ddpm.errors import DdpmError


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path with its tilde replaced by the home folder.

    Raises:
        DdpmError: nobody knows that home, or it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise DdpmError(f"a {type(path).__name__} is no path; give a string or a pathlib.Path")
    text = os.fspath(path)
    if text == "":
        raise DdpmError("a path is empty; is a variable of the shell not set?")
    try:
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError as error:
        raise DdpmError(
            f"{path} begins with a home folder that is not known; write the path in full"
        ) from error


def exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
        DdpmError: it cannot be seen whether there is, with the true reason.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise DdpmError(
                f"{path} is a link to {os.readlink(path)}, which does not exist"
            ) from None
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DdpmError(f"cannot look at {path} ({reason})") from error
    return True


def cache_home() -> Path:
    """Where caches go: `$XDG_CACHE_HOME` or `~/.cache`; the system's folder for temporary files
    where there is no home, or none that can be written."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name and without HOME
        return _temporary(tempfile.gettempdir())
    ours = home / ".cache" / "ddpm"
    if not home.is_dir():
        return _temporary(tempfile.gettempdir())
    try:
        ours.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary(tempfile.gettempdir())
    effective = os.access in os.supports_effective_ids
    writable = os.access(ours, os.W_OK | os.X_OK, effective_ids=effective)
    return home / ".cache" if writable else _temporary(tempfile.gettempdir())


def _temporary(system: str) -> Path:
    """A folder of this user's below the system's; what somebody else has put there is not
    believed."""
    user = os.geteuid() if hasattr(os, "geteuid") else None
    folder = Path(system) / f"ddpm-cache-{'user' if user is None else user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        return _fresh(system)
    ours = user is None or (facts.st_uid == user and not facts.st_mode & 0o022)
    return folder if ours and folder.is_dir() and not folder.is_symlink() else _fresh(system)


@cache
def _fresh(system: str) -> Path:
    """One for this process."""
    return Path(tempfile.mkdtemp(prefix="ddpm-cache-", dir=system))
