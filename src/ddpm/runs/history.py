"""What a model's weights have been through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddpm.data.content import DataFacts
from ddpm.runtime.device import Floats


@dataclass(frozen=True)
class History:
    """How long a model was trained, and on what.

    Args:
        data: name of the data set.
        step: optimiser steps of the run that made it.
        images, seconds: seen and spent in training, with those of the weights it started from.
        images_before, seconds_before: of those, what the weights it started from had seen.
        loss: the module and name of an own loss function; None for `training.loss`.
        facts: what the training images are known by; None in files of older versions.
        origin: of imported weights, where they come from; then nothing else may be known.
        began_from: the origin of the imported weights that training began from; what was seen is
            then what was seen since.
        precision: fp32 or bf16, in which the network was trained; None in files of older versions.
    """

    data: str = ""
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    images_before: int = 0
    seconds_before: float = 0.0
    loss: str | None = None
    facts: DataFacts | None = None
    origin: str | None = None
    began_from: str | None = None
    precision: Floats | None = None

    @staticmethod
    def read(stored: dict[str, Any]) -> History:
        """A history as it comes out of a file."""
        facts: dict[str, Any] | None = stored.get("facts")
        if facts is None:
            return History(**stored)
        lists: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()
        }
        return History(**{**stored, "facts": DataFacts(**lists)})
