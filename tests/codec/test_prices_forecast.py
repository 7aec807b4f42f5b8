"""The count of a step's bits: both sides forecast it alike, in integers."""

from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.prices import COARSE, UNIT, Forecast


@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 34)), max_size=20))
def test_a_forecast_stays_an_integer_and_within_its_bounds(steps):
    forecast = Forecast()
    for price, bits in steps:
        assert isinstance(forecast.bits(price), int)
        assert forecast.bits(price) >= 0
        assert forecast.quantum(price) >= 1
        forecast.learn(price, bits)
        assert 0 <= forecast.ratio <= 1 << 20


def test_a_forecast_begins_with_the_price_and_follows_what_came():
    forecast = Forecast()
    assert forecast.bits(800) == 800
    assert forecast.quantum(800) == 800 // COARSE
    for _ in range(20):
        forecast.learn(800, 1600)
    assert abs(forecast.bits(100) - 200) <= 1
    forecast.learn(0, 50)
    assert abs(forecast.ratio - 2 * UNIT) <= 2
    assert forecast.quantum(3) == 1
