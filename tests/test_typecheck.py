"""The run-time type checker of the tests: on at the beginning of each, off after many calls."""

import pytest
from jaxtyping import TypeCheckError

import typecheck
from ddpm.errors import check


def wrong():
    """A call that a type checker refuses."""
    check("no truth value", "")


def test_types_are_checked_until_many_calls_were_and_again_in_the_next_test():
    with pytest.raises(TypeCheckError):
        wrong()
    for _ in range(typecheck.CALLS):
        check(True, "")
    wrong()
    typecheck.begin()
    with pytest.raises(TypeCheckError):
        wrong()


def test_what_is_unchecked_is_checked_afterwards_unless_many_calls_were():
    with typecheck.unchecked():
        wrong()
    with pytest.raises(TypeCheckError):
        wrong()
    for _ in range(typecheck.CALLS):
        check(True, "")
    with typecheck.unchecked():
        wrong()
    wrong()
