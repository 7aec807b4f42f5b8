"""A time that a script keeps to: rows that would not fit are left out, and one that runs over is
ended."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import torch


class OutOfTime(BaseException):
    """No time is left; no handler of `Exception` in a library may take it for its own."""


class Budget:
    """The time that is left, and a guess of what a row takes: as long as the last of its kind.

    Args:
        seconds: in all.
        guesses: seconds of the first row of each kind.
        clock: gives seconds.
    """

    def __init__(
        self,
        seconds: float,
        guesses: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.guesses = clock, dict(guesses)
        self.end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - self.clock()

    def fits(self, kind: str) -> bool:
        """Whether a row of this kind would be done in time."""
        return self.guesses[kind] <= self.left

    @contextlib.contextmanager
    def row(self, kind: str) -> Iterator[None]:
        """Inside, `OutOfTime` is raised when no time is left (where the system has alarms)."""
        begun = self.clock()
        try:
            with alarm(max(self.left, 0.001)):
                yield
        finally:
            self.guesses[kind] = self.clock() - begun


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` inside after so long."""
    main = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "SIGALRM") or not main:
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reason(error: BaseException) -> str:
    """Why there is no number, short enough for a cell of a table."""
    if isinstance(error, OutOfTime):
        return "out of time"
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    words = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {words[:80]}"
