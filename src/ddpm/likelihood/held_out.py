"""Bits/dim of images that a model was not trained on, kept with it: what others are judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.errors import check

PREFIX = "held_out."  # of its tensors in a checkpoint


@dataclass(frozen=True)
class HeldOut:
    """What a model needs for some images.

    Args:
        bits_per_dim: of each, the bound (Eq. 5).
        name: of the images.

    Raises:
        DdpmError: there is no image, or a number that is none.
    """

    bits_per_dim: tuple[float, ...]
    name: str

    def __post_init__(self) -> None:
        check(
            bool(self.bits_per_dim) and all(map(math.isfinite, self.bits_per_dim)),
            "figures of held-out images need one or more numbers",
        )

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it."""
        return {
            f"{PREFIX}bits_per_dim": torch.tensor(self.bits_per_dim),
            f"{PREFIX}name": torch.tensor(list(self.name.encode()), dtype=torch.uint8),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> HeldOut | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if there is none.

        Raises:
            DdpmError: no numbers.
            KeyError: one of the two is missing.
        """
        if not any(name.startswith(PREFIX) for name in tensors):
            return None
        values = tensors[f"{PREFIX}bits_per_dim"].double().reshape(-1).tolist()
        name = bytes(tensors[f"{PREFIX}name"].tolist()).decode(errors="replace")
        return HeldOut(tuple(values), name)
