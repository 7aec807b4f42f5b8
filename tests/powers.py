"""Permissions that count even for root: the right to overrule them is put aside for a while.

Linux lets a process give up single powers of root and take them back; who is not root has none.
"""

import contextlib
import ctypes
import os
import sys

import pytest

VERSION_3 = 0x20080522
OVERRULING = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class Header(ctypes.Structure):
    """Of whose powers it is about: 0 for this thread's."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Set(ctypes.Structure):
    """Half of the powers, 32 bits each."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def change(effective):
    """Give this thread the powers `effective(before)`; those before."""
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(VERSION_3, 0), (Set * 2)()
    if library.capget(ctypes.byref(header), sets) != 0:
        pytest.skip("the powers of root cannot be read here")
    before = sets[0].effective
    sets[0].effective = effective(before)
    if library.capset(ctypes.byref(header), sets) != 0:
        pytest.skip("the powers of root cannot be put aside here")
    return before


@contextlib.contextmanager
def permissions_count():
    """Inside, a file without read permission cannot be read, even by root."""
    if os.name != "posix" or (os.geteuid() == 0 and not sys.platform.startswith("linux")):
        pytest.skip("root cannot be kept from reading here")
    if os.geteuid() != 0:
        yield
        return
    before = change(lambda powers: powers & ~OVERRULING)
    try:
        yield
    finally:
        change(lambda powers: before)


@contextlib.contextmanager
def with_modes(modes):
    """Inside, the paths have those modes, and they count."""
    old = {path: path.stat().st_mode for path in modes}
    for path, mode in modes.items():
        path.chmod(mode)
    try:
        with permissions_count():
            yield
    finally:
        for path, mode in reversed(old.items()):
            path.chmod(mode)
