"""How long work says how far it is: one protocol for everything that takes time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Is called again and again while something is being done.

    Args:
        done: how much is done, 0..total.
        total: how much there is.
        label: what is being done; what follows a ": " is a detail that may change on the way.
    """

    def __call__(self, done: int, total: int, label: str) -> None: ...


class Counter:
    """Counts what is done and tells it to `progress`, if there is one.

    Args:
        progress: who wants to know.
        total: how much there is to do; more than that raises it.
        label: see `Progress`.
    """

    def __init__(self, progress: Progress | None, total: int, label: str) -> None:
        self.progress, self.total, self.label, self.done = progress, total, label, 0
        self.advance(0)

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        self.total = max(self.total, self.done)
        if self.progress is not None:
            self.progress(self.done, self.total, self.label)
