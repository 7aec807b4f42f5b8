"""How the commands read their options: tyro, with errors reported in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import itertools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ddpm.config import Config
from ddpm.errors import DdpmError

T = TypeVar("T")
TO_PROGRAMS = "--json: figures, and what was made, as one JSON document on stdout."
SWITCHES = {"--calibrated": "True", "--no-calibrated": "False"}  # that may also be left out
SHORT = {"data.path": "--data", "training.max_minutes": "--max-minutes"}  # of options


def parse(
    what: type[T] | Callable[..., T],
    argv: Sequence[str],
    command: str,
    default: Any = None,
    about: str | None = None,
) -> T:
    """`what` filled from `argv`; `--help` prints `about` and the options and exits with 0.

    Raises:
        DdpmError: an option is unknown, malformed or out of range.
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    paragraphs = [inspect.cleandoc(what.__doc__ or ""), about, TO_PROGRAMS]
    options["description"] = "\n\n".join(filter(None, paragraphs))
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(what, args=switched(argv), prog=f"ddpm {command}", **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise DdpmError(_sentence(messages.getvalue(), command)) from None


def switched(argv: Sequence[str]) -> list[str]:
    """The arguments with each switch that has three positions given its value."""
    words: list[str] = []
    for word, after in itertools.pairwise([*argv, ""]):
        plain = word in SWITCHES and after not in SWITCHES.values()
        words += [f"--{word[2:].removeprefix('no-')}", SWITCHES[word]] if plain else [word]
    return words


def _sentence(box: str, command: str) -> str:
    """The words of tyro's framed message, without the frame, on one line."""
    words = " ".join(line.strip("│╭╮╰╯─ \t") for line in box.splitlines())
    words = " ".join(re.sub(r"[-─]{3,}", " ", words).split())
    words = re.split(r" (?:For full helptext|Argument helptext)", words)[0].rstrip(" ─.")
    titles = r"(?:Parsing error|Value error|Invalid choice|Unrecognized options|Required options) "
    words = re.sub(rf"^{titles}|^Error parsing config\S*: ", "", words)
    words = re.sub(r"^Error parsing config\S*: ", "", words)
    words = re.sub(r"^Missing from .*?: ", "missing: ", words)
    union = r"(--\S+): no type matching (.+?) could be instantiated from (\[.*?\])\..*"
    words = re.sub(rf"^(?:Error parsing )?{union}", r"\1 cannot be \3; it takes \2", words)
    words = re.sub(r"\{[^{}]*\}", lambda braces: braces[0].replace(" ", ""), words)
    words = words.replace("{None,", "{").replace("|{[INT[INT...]]}", " or timesteps")
    return f"{words}; see `ddpm {command.split()[0]} --help`"


def positional(argv: Sequence[str], what: str, command: str) -> tuple[str, list[str]]:
    """The leading argument that `command` needs, and the rest."""
    if argv and argv[0] in ("-h", "--help"):
        return "", list(argv)
    if not argv or (argv[0].startswith("-") and argv[0] != "-"):
        raise DdpmError(f"`ddpm {command}` needs {what} first; see `ddpm {command} --help`")
    return argv[0], list(argv[1:])


def say(*lines: str) -> None:
    """Print what was made and where."""
    print("\n".join(lines), file=sys.stdout, flush=True)


def typed(path: Path) -> str:
    """A path as it can be typed into a shell behind an option or as an argument."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith(("-", "~")) else text)


def as_flags(sentence: str) -> str:
    """A sentence with the settings that it names (training.lr) as options (--training.lr)."""
    config = Config()
    settings = {
        f"{group.name}.{setting.name}"
        for group in dataclasses.fields(config)
        for setting in dataclasses.fields(getattr(config, group.name))
    }

    def flag(found: re.Match[str]) -> str:
        name = found[0]
        return SHORT.get(name, f"--{name}").replace("_", "-") if name in settings else name

    return re.sub(r"(?<![\w./-])[a-z]+\.[a-z][a-z_0-9]*(?!\w|[./]\w)", flag, sentence)
