"""Files that are made once out of a data set and kept while it stays the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ddpm.errors import DdpmError
from ddpm.runtime.atomic import atomically
from ddpm.runtime.paths import cache_home

ADVICE = "make room there, or set XDG_CACHE_HOME to a folder that has some"


def cache_folder() -> Path:
    """`ddpm` below `cache_home()`: `$XDG_CACHE_HOME/ddpm` or `~/.cache/ddpm` as a rule."""
    return cache_home() / "ddpm"


def cached(kind: str, sources: Sequence[Path], build: Callable[[Path], object]) -> Path:
    """The file that `build` makes out of `sources`; made again once one of them has changed.

    Whether it has is seen from its path, its size and the time it was written. Of several
    processes that want the file at the same time one makes it and the others wait.

    Args:
        kind: what the file holds; the first part of its name.
        sources: existing files.
        build: writes the file at the path that it is given.

    Raises:
        DdpmError: the file cannot be written; nothing half-written is left.
    """
    stamp = hashlib.blake2b(digest_size=12)
    for source in sources:
        facts = source.stat()
        stamp.update(os.fsencode(source.resolve()))
        stamp.update(f"\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    target = cache_folder() / f"{kind}-{stamp.hexdigest()}"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                atomically(target, build, ADVICE)
    except OSError as error:
        raise DdpmError(f"cannot write {target} ({error.strerror or error}); {ADVICE}") from error
    return target


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """One process at a time; a process that dies lets the next one in, which clears up after it.

    Where the system has no such locks (Windows), several processes may make the same file; each
    renames a whole one into place.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = path.name.removesuffix(".lock")
        for partial in path.parent.glob(f"{target}.*.partial"):
            partial.unlink()  # of a process that was killed
        yield
