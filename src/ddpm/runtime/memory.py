"""How much memory a machine has left, and how much this process has taken at most."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
LIMITS = {  # of a container, and what it uses: cgroup version 2, then 1
    Path("/sys/fs/cgroup/memory.max"): Path("/sys/fs/cgroup/memory.current"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"): Path(
        "/sys/fs/cgroup/memory/memory.usage_in_bytes"
    ),
}


def free_memory(device: torch.device) -> int | None:
    """Bytes that a new process could take on the device; None where that cannot be known.

    On a CPU what the system says is available, or what a container's limit leaves, if that is less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [bytes_of(MEMINFO, "MemAvailable")]
    found += [_left(limit, usage) for limit, usage in LIMITS.items()]
    known = [value for value in found if value is not None]
    return max(min(known), 0) if known else _installed()


def peak_memory() -> int | None:
    """Bytes that were resident in this process at most; None where that is not told."""
    found = bytes_of(STATUS, "VmHWM")  # unlike ru_maxrss without what the parent process had
    if found is not None or sys.platform == "win32":
        return found
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def bytes_of(path: Path, name: str) -> int | None:
    """An entry such as `MemAvailable:  123 kB` of a file of the kernel's."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(encoding="utf-8"), re.M)
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])


def _left(limit: Path, usage: Path) -> int | None:
    """What a limit leaves."""
    try:
        return int(limit.read_text(encoding="utf-8")) - int(usage.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it says "max"
        return None


def _installed() -> int | None:
    """All memory of the machine, where nothing says what is free."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
