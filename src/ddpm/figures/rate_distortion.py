"""Rate and distortion of progressive coding (Figure 5), from the bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.data.open import Split
from ddpm.errors import whole_number
from ddpm.figures.bound_plots import rate_distortion_plot
from ddpm.figures.figure import Drawn, Figure, at_a_time
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress


@dataclass(frozen=True)
class RateDistortion(Figure):
    """Distortion and rate of progressive coding against time, and each other (Figure 5)."""

    shows: ClassVar[str] = "rate and distortion of progressive coding (Figure 5)"
    split: ClassVar[Split | None] = "test"

    n: int = 64
    """Images that are measured."""
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    """Decides all noise."""
    batch_size: int | None = None
    """Images at a time; 64 by default, or fewer large ones."""

    @property
    def wanted(self) -> int | None:
        """See `Figure.wanted`."""
        return self.n

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        whole_number("the seed", self.seed, 0)
        whole_number("batch_size", at_a_time(model, self.batch_size), 1)
        model.chain(self.plan)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """Three plots of one bound."""
        self.check(model)
        bound = model.bound(
            self.first_images(model, images),
            plan=self.plan,
            seed=self.seed,
            batch_size=at_a_time(model, self.batch_size),
            progress=progress,
        )
        return Drawn(
            rate_distortion_plot(bound),
            f"what a receiver has paid and sees on {self.n:,} images, {bound.mean:.3f} bits/dim in "
            f"all, with {len(bound.timesteps):,} reverse steps",
        )
