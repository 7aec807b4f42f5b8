"""Samples by class: a row a class, the same noise in every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.errors import check, whole_number
from ddpm.figures.figure import Drawn, SampledFigure, in_part
from ddpm.figures.layout import labelled_grid
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress

MOST = 100  # rows of a picture that can still be looked at


@dataclass(frozen=True)
class Classes(SampledFigure):
    """Samples of each class of a class-conditional model, with the same noise in every row."""

    shows: ClassVar[str] = "samples of each class, with the same noise in every row"
    every_class: ClassVar[bool] = True

    n: int = 8
    """Samples a class."""
    classes: tuple[str, ...] | None = None
    """Which classes, by name or number; all by default."""
    guidance: float = 1.0
    """How much more of the class, by classifier-free guidance: 1 is what the model learned."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        check(
            len(model.class_names) > 0,
            "this model knows no classes; one that was trained with network.classes does",
        )
        check(
            0 < len(self.names(model)) <= MOST,
            f"a figure shows 1..{MOST} classes, and these are {len(self.names(model)):,}; name "
            "some of them (classes)",
        )
        for name in self.names(model):
            model.given(name, self.guidance)
        super().check(model)

    def names(self, model: Ddpm) -> tuple[str, ...]:
        """The classes that are shown."""
        return model.class_names if self.classes is None else self.classes

    def rows(self, model: Ddpm, progress: Progress | None = None) -> UInt8[Tensor, "k n c h w"]:
        """Images 0 to n - 1 of the seed, given each class."""
        names = self.names(model)
        return torch.stack(
            [
                model.given(name, self.guidance).sample(
                    self.n, **self.how(model), progress=in_part(progress, name)
                )
                for name in names
            ]
        )

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A row a class."""
        self.check(model)
        rows, names = self.rows(model, progress).flatten(0, 1), self.names(model)
        return Drawn(
            labelled_grid(rows, model.format, self.n, left=names),
            f"{self.n:,} samples of each of {len(names):,} classes, with the same noise in every "
            f"row and guidance {self.guidance:g}",
        )
