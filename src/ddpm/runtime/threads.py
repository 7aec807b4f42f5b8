"""How many threads compute: no more than there are CPUs for this process.

PyTorch counts the cores of the machine, or those that the process is bound to, and knows nothing of
the share of them that a container has. With more threads than CPUs each waits for the others at the
end of every operation, and a network is many times slower.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

GIVEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # of the environment: somebody has decided

log = logging.getLogger("ddpm")


def limit_threads() -> None:
    """Compute on no more threads than there are CPUs, and say so, unless somebody has decided."""
    found, before = usable_cpus(), torch.get_num_threads()
    if found < before and not any(os.environ.get(name) for name in GIVEN):
        torch.set_num_threads(found)
        log.info("%d threads instead of %d, since so many CPUs may be used", found, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread: of little work others would only be waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: of those that it is bound to what its container allows.

    Args:
        root: of the file system in which Linux tells of its control groups.
    """
    bound = getattr(os, "sched_getaffinity", None)
    count = len(bound(0)) if bound is not None else os.cpu_count() or 1
    return max(1, min([count, *(math.ceil(share) for share in _shares(root))]))


def _shares(root: Path) -> Iterator[float]:
    """The CPUs that each control group around this process allows, where it limits them."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            places, first, second = [mounted, mounted / "unified"], "cpu.max", ""
        elif "cpu" in controllers.split(","):
            places = [mounted / controllers, mounted / "cpu"]
            first, second = "cpu.cfs_quota_us", "cpu.cfs_period_us"
        else:
            continue
        inside = Path(path.lstrip("/"))
        for place in places:
            for group in (inside, *inside.parents):
                words = f"{_text(place / group / first)} {second and _text(place / group / second)}"
                yield from _share(words.split())


def _share(words: list[str]) -> Iterator[float]:
    """A quota over its period, unless there is none ("max", -1)."""
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
