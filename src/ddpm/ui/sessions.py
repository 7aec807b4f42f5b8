"""What the server keeps of every open page, each by itself and all of them bounded."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from ddpm.errors import DdpmError, check
from ddpm.ui.work import Work

MOST_SESSIONS = 16  # whose results are kept; the least recently used goes first
MOST_BYTES = 16 << 20  # of one file that is handed in
MOST_WAITING = 16  # files that were handed in and not taken yet
GONE = "this page's result was put away to make room for others; make it again"


@dataclass
class Session:
    """One open page.

    Args:
        token: what its downloads are found by, which nobody can guess.
        results: what was made last, by tab.
        work: what is being made now.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    results: dict[str, Any] = field(default_factory=dict)
    work: Work | None = None

    def begin(self) -> Work:
        """New work; a page has one piece of it at a time, so that the one before ends."""
        self.cancel()
        self.work = Work()
        return self.work

    def cancel(self) -> None:
        """End what is being made."""
        if self.work is not None:
            self.work.cancel()

    def result(self, tab: str, kind: type) -> Any:
        """What was made last in a tab.

        Raises:
            DdpmError: it was put away.
        """
        found = self.results.get(tab)
        if not isinstance(found, kind):
            raise DdpmError(GONE)
        return found


class Sessions:
    """All open pages by the key that the page has.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self.most = most
        self._all: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> Session:
        """The one of a key, made if need be; it is now the one that was used last."""
        with self._lock:
            session = self._all.setdefault(key, Session())
            self._all.move_to_end(key)
            while len(self._all) > self.most:
                self._all.popitem(last=False)[1].cancel()
            return session

    def drop(self, key: str) -> None:
        """A page was closed."""
        with self._lock:
            session = self._all.pop(key, None)
        if session is not None:
            session.cancel()

    def close(self) -> None:
        """End all work."""
        for key in list(self._all):
            self.drop(key)

    def by_token(self, token: str) -> Session | None:
        """The one whose downloads have a token."""
        with self._lock:
            return next((s for s in self._all.values() if s.token == token), None)


class Inbox:
    """Files that were handed in, byte for byte and in memory only, until they are taken.

    Args:
        most: files that are kept; the oldest goes first.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.most = most
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """Keep a file; gives the token to take it with.

        Raises:
            DdpmError: it is too large.
        """
        check(len(data) <= MOST_BYTES, too_large(len(data)))
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._files[token] = data
            while len(self._files) > self.most:
                self._files.popitem(last=False)
        return token

    def get(self, token: str) -> bytes:
        """The file of a token, which stays until others take its place.

        Raises:
            DdpmError: it is not there any more.
        """
        with self._lock:
            data = self._files.get(token)
        if data is None:
            raise DdpmError("the file was put away to make room for others; choose it again")
        return data


def too_large(size: int) -> str:
    """Words about a file that the page does not take."""
    return (
        f"the file has {size:,} bytes, and this page takes {MOST_BYTES:,} at most; the command "
        "line takes any (`ddpm compress`)"
    )
