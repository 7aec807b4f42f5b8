"""Settings of other code bases: every one of them acts, or is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddpm.data.foreign import check_genuine
from ddpm.errors import Damaged, DdpmError, check
from ddpm.runtime.paths import exists

LARGEST = 1_000_000  # that a whole number of a network or a diffusion can be


class Settings:
    """The settings of one file, read one by one; what nobody has read is refused at the end.

    Args:
        values: as they stand in the file; those that begin with an underscore are its own affair.
        where: the file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = dict(values), where
        self.unread = {key for key in values if not key.startswith("_")}
        self.notes: list[str] = []  # what a user should know of them

    @staticmethod
    def of_file(path: Path) -> Settings:
        """Those of a JSON file.

        Raises:
            Damaged: it is no JSON object.
            DdpmError: it is missing or cannot be read.
        """
        check(exists(path) and not path.is_dir(), f"there is no {path}")
        check_genuine(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise Damaged(f"{path} is damaged: it is no JSON ({error})") from error
        except OSError as error:
            raise DdpmError(f"cannot read {path} ({error.strerror or error})") from error
        if not isinstance(values, dict):
            raise Damaged(f"{path} is damaged: it holds no settings")
        return Settings(values, str(path))

    def get(
        self,
        key: str,
        default: Any,
        kind: type | tuple[type, ...] | None = None,
        low: int | None = None,
    ) -> Any:
        """One setting, of the type of its default or of `kind`.

        Raises:
            DdpmError: it is of another type, a number that none can be, or below `low`.
        """
        self.unread.discard(key)
        value = self.values.get(key, default)
        kinds = kind or type(default)
        if kinds is float or kinds == (float,):
            kinds = (int, float)
        right = isinstance(value, kinds) and (isinstance(value, bool) <= (kinds is bool))
        check(
            right and all(map(is_sensible, value if isinstance(value, list) else [value])),
            f"'{key}' in {self.where} is {shown(value)}, which has no meaning there",
        )
        check(
            low is None or value is None or value >= low,
            f"'{key}' in {self.where} is {shown(value)}, and must be at least {low}",
        )
        return value

    def must_be(self, key: str, only: Any, *also: Any, reason: str = "") -> None:
        """Refuse all values of a setting but these; the first is what a missing one means.

        Raises:
            DdpmError: it is another, for which there is no counterpart.
        """
        self.unread.discard(key)
        value = self.values.get(key, only)
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool)
                   for known in (only, *also)):  # fmt: skip
            wanted = shown(only)
            raise DdpmError(
                f"'{key}' in {self.where} is {shown(value)}, and ddpm has a counterpart only for "
                f"{wanted}{reason and '; ' + reason}"
            )

    def pass_over(self, keys: Iterable[str]) -> None:
        """Settings that decide nothing, whatever they are."""
        self.unread -= set(keys)

    def finish(self) -> None:
        """Refuse what nobody has read.

        Raises:
            DdpmError: there is such a setting.
        """
        left = sorted(key for key in self.unread if self.values[key] is not None)
        if left:
            raise DdpmError(
                f"{left[0]!r} in {self.where} ({shown(self.values[left[0]])}) is a setting that "
                "ddpm has no counterpart for; take it out of the file if it decides nothing"
            )


def is_sensible(value: Any) -> bool:
    """Whether something is no number, or a finite one of a size that settings have."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) <= LARGEST


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
