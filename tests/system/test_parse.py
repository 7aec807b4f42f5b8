"""What tyro says in a frame becomes one sentence."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ddpm.cli.parse import parse, positional
from ddpm.errors import DdpmError


@dataclass(frozen=True)
class Options:
    """Some."""

    out: Path
    """Where."""
    steps: int = 3
    """How many."""


def test_options_are_read():
    assert parse(Options, ["--out", "x", "--steps", "5"], "go") == Options(Path("x"), 5)


@pytest.mark.parametrize(
    ("argv", "word"),
    [([], "--out"), (["--out", "x", "--steps", "many"], "many"), (["--out", "x", "--no"], "--no")],
)
def test_a_mistake_is_told_without_the_frame(argv, word):
    long = "a/very/long/path/" * 12
    with pytest.raises(DdpmError) as told:
        parse(Options, argv, f"go {long}")
    sentence = str(told.value)
    assert word in sentence
    assert sentence.endswith("see `ddpm go --help`")
    assert "\n" not in sentence
    assert "---" not in sentence
    assert not set("│╭╮╰╯─") & set(sentence)
    assert len(sentence) < 400


def test_the_leading_argument_is_asked_for():
    assert positional(["run", "--x"], "a run", "go") == ("run", ["--x"])
    with pytest.raises(DdpmError, match="needs a run first"):
        positional(["--x"], "a run", "go")
