"""How a setting out of range is refused."""

from __future__ import annotations

from ddpm.errors import check


def at_least(name: str, value: float, low: float) -> None:
    """Refuse a value below `low`."""
    check(value >= low, f"{name} must be at least {low:g}, got {value:g}")
