"""What tyro says in a frame becomes one sentence."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ddpm.cli.parse import parse, positional
from ddpm.errors import DdpmError
from ddpm.likelihood.plan import Plan


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


def test_a_value_of_no_allowed_kind_is_told_with_what_is_allowed():
    with pytest.raises(DdpmError) as told:
        parse(Plan, ["--steps", "3", "--trajectory", "best"], "sample x")
    sentence = str(told.value)
    allowed = "{even,quadratic,optimal,smooth}"
    assert sentence.startswith(f"--trajectory cannot be ['best']; it takes {allowed}")
    assert "type" not in sentence
    assert parse(Plan, ["--trajectory", "0", "4", "9"], "sample x") == Plan(trajectory=(0, 4, 9))
