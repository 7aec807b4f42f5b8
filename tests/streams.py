"""Standard streams as they are in terminals, pipes and files, of any width and encoding."""

import io
import re
import sys

from ddpm.cli import progress

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stream(io.TextIOWrapper):
    """Where a program writes."""

    def __init__(self, terminal, encoding, errors):
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def written(self):
        """All bytes so far."""
        self.flush()
        return self.buffer.getvalue()

    @property
    def text(self):
        """The same as text."""
        return self.written.decode(self.encoding)

    @property
    def lines(self):
        """What stood on the screen at some time, a line each, without colours."""
        return [x for x in re.split(r"[\r\n]", ESCAPES.sub("", self.text)) if x.strip()]


def standard_streams(monkeypatch, out=True, errors=True, encoding="utf-8", columns=80):
    """Replace stdout and stderr, each a terminal or not; as in Python only stdout is strict."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    streams = (
        Stream(out, encoding, "strict"),
        Stream(errors, encoding, "backslashreplace"),
    )
    monkeypatch.setattr("rich._console", None)  # rich keeps one that knew the streams before
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    return streams


class Clock:
    """Time that passes when it is told to; `progress_bar` and rich look at it."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("rich._console", None)
        for name in ("rich.console.monotonic", "time.monotonic", "time.perf_counter"):
            monkeypatch.setattr(name, lambda: self.now)
        lines = getattr(progress, "Lines", None)  # has taken its clock already
        if lines is not None:
            monkeypatch.setattr(progress, "Lines", lambda: lines(lambda: self.now))

    def wait(self, seconds):
        self.now += seconds
