"""The one exception for mistakes a user can mend; the command line prints it and exits with 2."""


class DdpmError(ValueError):
    """Says in one sentence what is wrong and how to mend it."""


class Diverged(DdpmError):
    """Training ended because its loss was no longer a finite number."""


def check(condition: bool, message: str) -> None:
    """Raise `DdpmError(message)` unless `condition` holds."""
    if not condition:
        raise DdpmError(message)
