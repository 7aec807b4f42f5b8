"""What a command says at its end: its figures, what it made and where, and what to do next.

For people these are lines; with `--json` they are one JSON document, the only thing on stdout, and
all words go to stderr:

    {"command": ["evaluate", ...], "ddpm": VERSION, "figures": {...}, "made": [PATH, ...],
     "next": [COMMAND, ...], "exit": 0}

A command that failed has `error`, the sentence that stderr has, and its exit code.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpm import __version__
from ddpm.cli.parse import as_flags, say
from ddpm.errors import DdpmError
from ddpm.runtime import parallel
from ddpm.runtime.atomic import to_json

JSON = "--json"


@dataclass
class Outcome:
    """What a command has told so far.

    Args:
        command: its arguments.
        figures: by name.
        made: files and folders.
        then: commands that can be typed next.
        code: its exit code; None while it runs.
        error: why it failed.
    """

    command: list[str]
    figures: dict[str, Any] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    then: list[str] = field(default_factory=list)
    code: int | None = None
    error: str | None = None

    def ended(self, code: int) -> int:
        """Keep the exit code, and hand it on."""
        self.code = code
        return code

    def document(self) -> dict[str, Any]:
        """All of it, as JSON."""
        failed = {} if self.error is None else {"error": self.error}
        return {
            "command": self.command,
            "ddpm": __version__,
            "figures": self.figures,
            "made": self.made,
            "next": self.then,
            **failed,
            "exit": self.code,
        }


_outcome: Outcome | None = None  # None where nobody asked for a document


def wants_document(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--json` is among a command's arguments, and the others; help stays for people."""
    rest = [word for word in arguments if word != JSON]
    return len(rest) < len(arguments) and not {"-h", "--help"} & {*rest}, rest


def is_document() -> bool:
    """Whether one JSON document is asked for."""
    return _outcome is not None


def tell(**figures: object) -> None:
    """Figures for the document; those of a name that is there already are added to it."""
    if _outcome is None:
        return
    for name, value in figures.items():
        before, now = _outcome.figures.get(name), plain(value)
        both = isinstance(before, dict) and isinstance(now, dict)
        _outcome.figures[name] = before | now if both else now


def finish(*lines: str, made: Sequence[Path] = (), then: Mapping[str, str] | None = None) -> None:
    """The last words of a command.

    Args:
        lines: what was made, and where.
        made: the same as paths.
        then: commands to go on with, each with what it does.
    """
    if _outcome is not None:
        _outcome.made += [str(path) for path in made]
        _outcome.then += list(then or ())
    say(*lines, *[f"{what}: {command}" for command, what in (then or {}).items()])


@contextmanager
def one_document(asked: bool, command: Sequence[str]) -> Iterator[Callable[[int], int]]:
    """Run a command inside, which gives its exit code to what is yielded. Where a document is asked
    for, words go to stderr, and the document is printed at the end, also of what is refused."""
    global _outcome
    if not asked:
        yield lambda code: code
        return
    outcome, stdout = Outcome(list(command)), sys.stdout
    _outcome = outcome
    try:
        with contextlib.ExitStack() as stack:
            if parallel.is_main():  # of several processes the others print nothing
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield outcome.ended
    except (DdpmError, OSError) as error:
        outcome.code, outcome.error = 2, sentence(error)
        raise
    except KeyboardInterrupt:
        outcome.code, outcome.error = 130, "interrupted"
        raise
    finally:
        _outcome = None
        if outcome.code is not None:
            print(to_json(outcome.document(), 2), file=stdout, flush=True)


def sentence(error: Exception) -> str:
    """What a user's error says, on one line."""
    # An OSError is a disk that filled up, a name too long: nothing to trace.
    said = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        said = f"{error.filename}: {error.strerror}"
    return as_flags(" ".join(said.split()))


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
