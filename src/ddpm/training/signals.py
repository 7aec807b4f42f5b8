"""SIGINT and SIGTERM, collected so that a run ends saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ddpm.runtime import parallel


@contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM in a list instead of dying; a second one dies as usual.

    One of several processes only counts them: a launcher passes on the signals that its processes
    have received already.
    """
    caught: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        if parallel.size() == 1:
            signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
