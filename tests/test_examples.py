"""The example scripts print what the documentation says."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import markov_chains


def test_the_weather_converges_to_its_stationary_distribution():
    history = markov_chains.weather()
    assert history[0] == pytest.approx([0.7, 0.3])
    assert history[-1] == pytest.approx([0.75, 0.25], abs=1e-6)


def test_a_thousand_steps_and_one_jump_have_the_same_moments():
    walked, jumped = markov_chains.pixel(n=5000)
    for x in (walked, jumped):
        assert float(x.mean()) == pytest.approx(0.5 * 4.04e-5**0.5, abs=0.06)
        assert float(x.std()) == pytest.approx(1, abs=0.04)
