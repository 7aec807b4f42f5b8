"""Coarse-to-fine interpolation (Figure 9): more and fewer steps of diffusion before mixing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.errors import check
from ddpm.figures.figure import Drawn, check_time, in_part, scaled
from ddpm.figures.interpolation import HEAD, InterpolatedFigure, between
from ddpm.figures.layout import labelled_grid
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress

PAPER = (1000, 875, 750, 625, 500, 375, 250, 125, 0)  # steps of diffusion


@dataclass(frozen=True)
class CoarseToFine(InterpolatedFigure):
    """Interpolation of two images after more and fewer steps of diffusion (Figure 9)."""

    shows: ClassVar[str] = "two images mixed after T down to 0 steps of diffusion (Figure 9)"

    t: tuple[int, ...] | None = None
    """Steps of diffusion, a row each, 0..T; 1000, 875, ..., 125 and 0 of 1,000 by default."""

    @property
    def wanted(self) -> int | None:
        """See `Figure.wanted`."""
        return 2

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        check(self.t is None or len(self.t) > 0, "t names no step of diffusion")
        for t in self.t or ():
            check_time(model, t)
        super().check(model)

    def times(self, model: Ddpm) -> list[int]:
        """The t of the rows, from the top."""
        return list(dict.fromkeys(self.t or [scaled(model, t) for t in PAPER]))

    def rows(
        self, model: Ddpm, images: UInt8[Tensor, "2 c h w"], progress: Progress | None = None
    ) -> UInt8[Tensor, "k 13 c h w"]:
        """A row a t, with the sources at its ends."""
        times, rows = self.times(model), []
        for i, t in enumerate(times):
            part = in_part(progress, f"row {i + 1} of {len(times)}")
            (mixed,) = self.mixed(model, images, t, part)
            rows.append(between(images[0], images[1], mixed))
        return torch.stack(rows)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A row a t."""
        self.check(model)
        rows = self.rows(model, self.first_images(model, images), progress)
        labels = [f"{t:,} steps" for t in self.times(model)]
        return Drawn(
            labelled_grid(rows.flatten(0, 1), model.format, len(HEAD), left=labels, top=HEAD),
            f"two images mixed after {labels[0]} of diffusion (top) down to {labels[-1]} (bottom) "
            f"of {model.diffusion.num_timesteps:,}",
        )
