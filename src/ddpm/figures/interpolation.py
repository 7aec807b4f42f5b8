"""Interpolation (Figure 8): two images mixed in the space of x_t, and as pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.data.open import Split
from ddpm.errors import whole_number
from ddpm.figures.figure import Drawn, Figure, check_time, scaled
from ddpm.figures.layout import labelled_grid, stacked
from ddpm.latents import interpolate
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress

WEIGHTS = tuple(i / 10 for i in range(11))  # lambda
HEAD = ("source", "rec.", *(f"λ = {w:g}" for w in WEIGHTS[1:-1]), "rec.", "source")


def between(
    first: UInt8[Tensor, "c h w"],
    second: UInt8[Tensor, "c h w"],
    mixed: UInt8[Tensor, "11 c h w"],
) -> UInt8[Tensor, "13 c h w"]:
    """A row: the one source, what lies between, the other source."""
    return torch.cat([first[None], mixed, second[None]])


@dataclass(frozen=True)
class InterpolatedFigure(Figure):
    """What figures of interpolation have in common."""

    split: ClassVar[Split | None] = "test"

    sampler: str = "ancestral"
    """How x_t becomes an image: ancestral (the paper's Algorithm 2), dpm-solver, unipc or langevin;
    with ddim x_t comes from the image by inversion, instead of noise."""
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    """Decides all noise, which is the same for every λ."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("the seed", self.seed, 0)
        _, plan = model.plan_samples(self.sampler, self.plan)
        model.chain(plan)

    def mixed(
        self,
        model: Ddpm,
        images: UInt8[Tensor, "m c h w"],
        t: int,
        progress: Progress | None = None,
    ) -> UInt8[Tensor, "n 11 c h w"]:
        """Images 0 and 1, 2 and 3, ... mixed after t steps of diffusion; as pixels where t is 0."""
        found = interpolate(
            model,
            images[0::2],
            images[1::2],
            WEIGHTS,
            t,
            seed=self.seed,
            sampler=self.sampler,
            plan=self.plan,
            progress=progress,
        )
        return found.transpose(0, 1)


@dataclass(frozen=True)
class Interpolation(InterpolatedFigure):
    """Interpolation of two images at a t (Figure 8), and of their pixels below it."""

    shows: ClassVar[str] = "two images mixed at a t, λ from 0 to 1, and their pixels (Figure 8)"

    t: int | None = None
    """Steps of diffusion before the images are mixed, 1..T; 500 of 1,000 by default, as in the
    paper."""
    pairs: int = 3
    """How many: images 0 and 1, 2 and 3, and so on."""

    @property
    def wanted(self) -> int | None:
        """See `Figure.wanted`."""
        return 2 * self.pairs

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("pairs", self.pairs, 1)
        if self.t is not None:
            check_time(model, self.t, 1)
        super().check(model)

    def time(self, model: Ddpm) -> int:
        """The t."""
        return max(1, scaled(model, 500)) if self.t is None else self.t

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """Two rows a pair: mixed at t, mixed as pixels."""
        self.check(model)
        chosen, t = self.first_images(model, images), self.time(model)
        diffused, pixels = self.mixed(model, chosen, t, progress), self.mixed(model, chosen, 0)
        grids = []
        for pair in range(self.pairs):
            ends = chosen[2 * pair], chosen[2 * pair + 1]
            rows = torch.cat([between(*ends, diffused[pair]), between(*ends, pixels[pair])])
            words = HEAD if pair == 0 else ()
            labels = (f"t = {t:,}", "pixels")
            grids.append(labelled_grid(rows, model.format, len(HEAD), left=labels, top=words))
        how = "DDIM inversion" if self.sampler == "ddim" else "the same noise"
        return Drawn(
            stacked(grids),
            f"two images mixed after t = {t:,} steps of diffusion (upper rows; {how} for every λ) "
            "and as pixels (lower rows)",
        )
