"""Long work for a page: one piece at a time, in the order it came, and stopped when nobody waits.

A browser's tab may be closed at any moment, and what becomes of a generator then is the web
framework's own affair. So the work itself asks at every step whether somebody still wants it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar, cast

from ddpm.errors import DdpmError

T = TypeVar("T")
PAUSE = 0.25  # seconds between two looks at a piece of work
PATIENCE = 15.0  # seconds without a look after which nobody waits any more
MOST = 8  # pieces of work that wait or are done at a time


class Cancelled(Exception):
    """The work was stopped because somebody asked for it, or because nobody waits for it."""


class Work:
    """A piece of work: a `Progress` that ends the work when it is no longer wanted.

    Args:
        patience: seconds without `look` after which it is no longer wanted.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.done, self.total, self.label = 0, 0, "waiting for others"
        self._stopped, self._seen = threading.Event(), time.monotonic()

    def cancel(self) -> None:
        """Have it end at its next step."""
        self._stopped.set()

    def look(self) -> None:
        """Say that somebody waits."""
        self._seen = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether it was not cancelled and somebody waits."""
        return not self._stopped.is_set() and time.monotonic() - self._seen < self.patience

    def __call__(self, done: int, total: int, label: str) -> None:
        """Note how far it is.

        Raises:
            Cancelled: it is not wanted.
        """
        if not self.wanted:
            raise Cancelled
        self.done, self.total, self.label = done, total, label


class Desk:
    """Where the work of all users is done, by one thread.

    Args:
        most: pieces that may wait or be done; more are refused.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ddpm-ui")
        self._lock, self._pending = threading.Lock(), 0

    @property
    def is_free(self) -> bool:
        """Whether nothing waits or is being done."""
        return self._pending == 0

    def follow(self, work: Work, do: Callable[[Work], T]) -> Generator[Work, None, T]:
        """Do some work, and look at it again and again.

        Args:
            work: is told how far it is.
            do: the work itself, which hands `work` on as its progress.

        Yields:
            The work, every PAUSE seconds until it is done.

        Returns:
            What `do` returns.

        Raises:
            DdpmError: too many others wait, or what `do` raises.
            Cancelled: the work was not wanted any more.
        """
        with self._lock:
            if self._pending >= self.most:
                raise DdpmError(
                    f"{self._pending} others are waiting already; try again when they are done"
                )
            self._pending += 1
        future: Future[T] = self._thread.submit(self._do, work, do)
        future.add_done_callback(self._leave)
        try:
            while not wait([future], PAUSE).done:
                work.look()
                yield work
            return future.result()
        finally:
            work.cancel()

    def do(self, do: Callable[[Work], T]) -> T:
        """Do some short work, and wait for it; see `follow`."""
        steps = self.follow(Work(), do)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast(T, end.value)

    @staticmethod
    def _do(work: Work, do: Callable[[Work], T]) -> T:
        """Begin, unless it is not wanted any more."""
        work(0, 0, "beginning")
        return do(work)

    def _leave(self, _: Future[T]) -> None:
        with self._lock:
            self._pending -= 1

    def close(self) -> None:
        """Take nothing more; what waits is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
