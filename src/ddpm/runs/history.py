"""What a model's weights have been through."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class History:
    """How long a model was trained, and on what.

    Args:
        data: name of the data set.
        step: optimiser steps of the run that made it.
        images, seconds: seen and spent in training, with those of the weights it started from.
        images_before, seconds_before: of those, what the weights it started from had seen.
        loss: the module and name of an own loss function; None for `training.loss`.
    """

    data: str = ""
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    images_before: int = 0
    seconds_before: float = 0.0
    loss: str | None = None
