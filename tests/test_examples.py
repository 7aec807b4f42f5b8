"""The example scripts print what the documentation says."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import markov_chains
import train_by_hand


def test_the_weather_converges_to_its_stationary_distribution():
    history = markov_chains.weather()
    assert len(history) == 10
    assert history[0] == pytest.approx([0.5, 0.5])
    assert history[1] == pytest.approx([0.7, 0.3])
    assert history[-1] == pytest.approx([0.75, 0.25], abs=1e-6)


def test_a_thousand_steps_and_one_jump_have_the_same_moments():
    walked, jumped = markov_chains.pixel(n=5000)
    for x in (walked, jumped):
        assert float(x.mean()) == pytest.approx(0.5 * 4.04e-5**0.5, abs=0.06)
        assert float(x.std()) == pytest.approx(1, abs=0.04)


@pytest.mark.slow
def test_the_loop_by_hand_learns_and_draws():
    drawn, bits = train_by_hand.main(steps=40, count=4)
    assert drawn.shape == (4, 1, 8, 8)
    assert int(drawn.max()) <= 16
    assert 0 < bits < 8
