"""The run-time type checker of the tests: beartype, with an int allowed where a float is asked.

Of every test, what it asks of fixtures included, only so many calls are checked as need `CALLS`
checks, two a call as a rule. It is loops that make more, of the same shapes, and to check those
would be most of the time that the tests take.
"""

from contextlib import contextmanager
from functools import wraps

from beartype import BeartypeConf, beartype
from jaxtyping import config

CALLS = 10_000

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checked = 0


def check(function):
    """What is called to see whether arguments, or a result, are of their types."""
    checked = _check(function)

    @wraps(checked)
    def counted(*args, **kwargs):
        global _checked
        _checked += 1
        if _checked >= CALLS:
            config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted


def begin():
    """Another test."""
    global _checked
    _checked = 0
    config.update("jaxtyping_disable", False)


@contextmanager
def unchecked():
    """Inside, types are not checked: what a user without a type checker would see."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
