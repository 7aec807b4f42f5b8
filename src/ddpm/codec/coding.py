"""What a model must have learned besides its network before it compresses: the last stage, and the
way that a single image takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.codec.last_stage import LastStage
from ddpm.codec.route import Route

PREFIX = "codec."  # of its tensors in a checkpoint


@dataclass(frozen=True, eq=False)
class Coding:
    """Kept in a model's file, and part of what its archives need.

    Args:
        last_stage: codes the exact pixels.
        route: of a single image of the model's size, whose header does not say it.
    """

    last_stage: LastStage
    route: Route

    def digest(self) -> bytes:
        """Of all its numbers."""
        route = ",".join(map(str, self.route.numbers()))
        return hashlib.blake2b(route.encode() + self.last_stage.digest()).digest()

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it."""
        found = {f"{PREFIX}{name}": value for name, value in self.last_stage.tensors().items()}
        return found | {f"{PREFIX}route": torch.tensor(self.route.numbers())}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> Coding | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if there is none.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        found = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        if not found:
            return None
        route = Route.of_numbers(found.pop("route").tolist())
        return Coding(LastStage.from_tensors(found), route)
