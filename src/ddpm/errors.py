"""The one exception for errors a user can fix; the command line prints it and exits with 2."""

from numbers import Integral


class DdpmError(ValueError):
    """Says in one sentence what is wrong and how to fix it."""


class Damaged(DdpmError):
    """A file is not what it was when it was written."""


class Diverged(DdpmError):
    """Training ended because its loss was no longer a finite number, or far from what it was.

    Args:
        since: the first step whose loss shows it; the weights may be bad from the step before.
    """

    def __init__(self, message: str, since: int) -> None:
        super().__init__(message)
        self.since = since


def check(condition: bool, message: str) -> None:
    """Raise `DdpmError(message)` unless `condition` holds."""
    if not condition:
        raise DdpmError(message)


def whole_number(name: str, value: object, low: int) -> int:
    """A whole number of at least `low`, of NumPy or of Python; anything else is refused."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise DdpmError(f"{name} must be a whole number, got {value!r}")
    check(int(value) >= low, f"{name} must be at least {low}, got {value}")
    return int(value)


def one_of(name: str, value: object, options: tuple[str, ...]) -> None:
    """Refuse a value outside `options`."""
    check(value in options, f"{name} must be one of {', '.join(options)}, got {value!r}")
