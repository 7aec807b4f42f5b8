"""docs/markov-chains.md: every block of code prints what stands below it, and that is true."""

import contextlib
import io
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import weather

PAGE = (Path(__file__).parents[2] / "docs" / "markov-chains.md").read_text(encoding="utf-8")
PRINTED = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", flags=re.S)


@pytest.fixture(scope="module")
def space():
    """The names of the page after all its code has run; what each block printed is compared."""
    names = {}
    with np.printoptions():  # the page sets its own
        for code, expected in PRINTED.findall(PAGE):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code, names)
            assert out.getvalue() == expected, code
    return names


def test_every_block_of_code_prints_what_stands_below_it(space):
    assert len(PRINTED.findall(PAGE)) == PAGE.count("```python") >= 12
    assert space["weather"].shape == (2, 2)


def test_the_ten_days_are_those_of_exact_fractions(space):
    sunny = Fraction(1, 2)
    for belief in space["beliefs"]:
        assert belief == pytest.approx([float(sunny), float(1 - sunny)], abs=1e-15)
        sunny = sunny * Fraction(8, 10) + (1 - sunny) * Fraction(6, 10)
    assert len(space["beliefs"]) == 10
    assert abs(sunny - Fraction(3, 4)) == Fraction(1, 4) * Fraction(1, 5) ** 10


def test_the_picture_shows_the_chains_of_the_page(space):
    assert np.array_equal(weather.WEATHER, space["weather"])
    assert np.array_equal(weather.RING, space["ring"])
    drawn = weather.beliefs(np.array([0.5, 0.5]))
    assert drawn == pytest.approx(np.array(space["beliefs"]), abs=1e-15)


def test_every_arrow_of_the_picture_bears_the_probability_of_its_step():
    figure = weather.picture()
    for axes, matrix in ((figure.axes[0], weather.WEATHER), (figure.axes[2], weather.RING)):
        numbers = sorted(float(text.get_text()) for text in axes.texts if "." in text.get_text())
        assert numbers == sorted(matrix.ravel().tolist())
    (curve,) = [line for line in figure.axes[1].lines if line.get_label() == "from (0.5, 0.5)"]
    assert curve.get_ydata()[[0, 1, 9]] == pytest.approx([0.5, 0.7, 0.75], abs=1e-6)


def test_flows_in_and_out_of_a_state_are_equal_with_and_without_detailed_balance(space):
    for matrix in (space["weather"], space["ring"]):
        flow = space["flow"](matrix)
        assert flow.sum(axis=0) == pytest.approx(flow.sum(axis=1), abs=1e-15)
        assert flow.sum() == pytest.approx(1)
    ring = space["flow"](space["ring"])
    assert ring[0, 1] == pytest.approx(8 / 30)
    assert ring[1, 0] == pytest.approx(1 / 30)


def test_a_chain_run_backwards_has_the_law_of_the_paths_of_the_chain(space):
    """Followed from its last day with the page's `reverse`, every path is as likely as forwards."""
    matrix, laws = space["ring"], [np.array([0.7, 0.2, 0.1])]
    for _ in range(3):
        laws.append(laws[-1] @ matrix)
    back = [space["reverse"](law, matrix) for law in laws[:-1]]
    for path in np.ndindex(3, 3, 3, 3):
        forwards, backwards = laws[0][path[0]], laws[-1][path[-1]]
        for day in range(3):
            forwards *= matrix[path[day], path[day + 1]]
            backwards *= back[day][path[day + 1], path[day]]
        assert backwards == pytest.approx(forwards, abs=1e-15)


def test_the_numbers_of_the_text_are_those_of_the_code(space):
    text = PRINTED.sub("", PAGE)
    assert space["weather"].ravel().tolist() == [0.8, 0.2, 0.6, 0.4]
    stated = set(re.findall(r"(?<![\w.])0\.\d+", text))
    assert stated == {"0.8", "0.6", "0.75", "0.5"}  # the two that define the weather, pi, the pixel
    assert space["pi"][0] == pytest.approx(0.75)
