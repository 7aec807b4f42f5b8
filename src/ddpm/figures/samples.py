"""Samples (Figures 1, 3 and 4): what the model draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.errors import whole_number
from ddpm.figures.figure import Drawn, SampledFigure
from ddpm.figures.layout import labelled_grid
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress


@dataclass(frozen=True)
class Samples(SampledFigure):
    """Samples of the model (Figures 1, 3 and 4)."""

    shows: ClassVar[str] = "samples of the model (Figures 1, 3, 4)"

    n: int = 64
    """How many."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        super().check(model)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A grid of images 0 to n - 1 of the seed, row by row."""
        self.check(model)
        drawn = model.sample(self.n, **self.how(model), progress=progress)
        columns = math.ceil(math.sqrt(self.n))
        return Drawn(
            labelled_grid(drawn, model.format, columns),
            f"{self.n:,} samples that the model drew, row by row images 0 to {self.n - 1:,} of "
            f"seed {self.seed}",
        )
