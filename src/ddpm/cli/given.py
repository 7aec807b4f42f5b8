"""The class that a command works with, of a model that knows classes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

import tyro

from ddpm.errors import check
from ddpm.model import Ddpm


@dataclass(frozen=True)
class Given:
    """A class and how much of it; a part of other options.

    Raises:
        DdpmError: a guidance without a class.
    """

    label: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """A class, by name or number, of a model that knows classes; none by default."""
    guidance: float | None = None
    """How much more of the class, by classifier-free guidance: 1 (the default) is what the model
    learned, 0 leaves the class out."""

    def __post_init__(self) -> None:
        check(
            self.guidance is None or self.label is not None,
            "--guidance has no effect without a class; give --class as well",
        )

    def to(self, model: Ddpm) -> Ddpm:
        """The model with the class.

        Raises:
            DdpmError: it has no classes, or not this one.
        """
        return model if self.label is None else model.given(self.label, self.scale)

    @property
    def scale(self) -> float:
        """The guidance, 1 by default."""
        return 1.0 if self.guidance is None else self.guidance

    def __str__(self) -> str:
        """As options."""
        if self.label is None:
            return ""
        exactly = repr(self.scale).removesuffix(".0")  # a file of another guidance is not decoded
        return f"--class {shlex.quote(self.label)} --guidance {exactly}"
