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
        spectral: the path's variances are those of principal colours and frequencies, which cost
            less for most images, and not those of pixels.
        route: of a single image of the model's size, whose header does not say it.
        ends: bits/dim that the last stage takes from some timesteps, by which routes are chosen.
        margin: in bytes, that a predicted x_0 keeps to the borders of the cells it is rounded to:
            many times what it differs by from machine to machine.
    """

    last_stage: LastStage
    spectral: bool
    route: Route
    ends: dict[int, float]
    margin: float

    def digest(self) -> bytes:
        """Of all that a decoder computes with."""
        said = ",".join(map(str, [int(self.spectral), *self.route.numbers()]))
        return hashlib.blake2b(said.encode() + self.last_stage.digest()).digest()

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it."""
        found = {f"{PREFIX}{name}": value for name, value in self.last_stage.tensors().items()}
        return found | {
            f"{PREFIX}spectral": torch.tensor(int(self.spectral)),
            f"{PREFIX}route": torch.tensor(self.route.numbers()),
            f"{PREFIX}ends.timesteps": torch.tensor(list(self.ends)),
            f"{PREFIX}ends.bpd": torch.tensor(list(self.ends.values()), dtype=torch.float64),
            f"{PREFIX}margin": torch.tensor(self.margin, dtype=torch.float64),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> Coding | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if there is none.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        found = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        stage = LastStage.from_tensors(found)
        if stage is None:
            return None
        steps, costs = found["ends.timesteps"].tolist(), found["ends.bpd"].tolist()
        route = Route.of_numbers(found["route"].tolist())
        ends = dict(zip(steps, costs, strict=True))
        return Coding(stage, bool(found["spectral"]), route, ends, float(found["margin"]))
