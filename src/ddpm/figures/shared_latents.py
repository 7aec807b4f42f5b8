"""Samples that share a latent (Figure 7): several ways down from one x_t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.errors import check, whole_number
from ddpm.figures.figure import Drawn, SampledFigure, check_time, in_part, scaled
from ddpm.figures.grid import image_grid
from ddpm.figures.layout import beside, enlargement, stacked, titled
from ddpm.latents import denoise
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress
from ddpm.sampling import SampleState, get_sampler, is_deterministic

BRANCHES = 3  # samples around an x_t
PAPER = (1000, 750, 500, 250)  # steps of diffusion


class LatentRecorder:
    """A sampler callback that keeps x_t of the images of a chain at some t.

    Args:
        count: images of the chain.
        shape: of one image.
        times: the t, each visited by the chain.
    """

    def __init__(self, count: int, shape: tuple[int, int, int], times: list[int]) -> None:
        self.kept = {t: torch.zeros(count, *shape) for t in times}

    def __call__(self, state: SampleState) -> None:
        """Record the state before the step, if it is at one of the t."""
        kept = self.kept.get(state.timestep + 1)
        if kept is not None:
            kept[state.first : state.first + len(state.x_t)] = state.x_t.cpu()


@dataclass(frozen=True)
class SharedLatents(SampledFigure):
    """Samples that share x_t (Figure 7): a chain is walked to t, and from there three times on;
    x_t itself is in the lower right."""

    shows: ClassVar[str] = "samples that share x_t, itself in the lower right (Figure 7)"

    t: tuple[int, ...] | None = None
    """Steps of diffusion at which x_t is shared, 1..T; 1000, 750, 500 and 250 of 1,000 by default.
    With fewer steps the nearest t that the chain visits is taken, and shown."""
    n: int = 3
    """Chains, a row each."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        check(self.t is None or len(self.t) > 0, "t names no step of diffusion")
        for t in self.t or ():
            check_time(model, t, 1)
        super().check(model)
        check(
            not self.deterministic(model),
            f"with {self.sampler} all samples from one x_t are the same; use ancestral, or ddim "
            "with an eta",
        )

    def deterministic(self, model: Ddpm) -> bool:
        """Whether nothing is random behind x_T."""
        return is_deterministic(get_sampler(self.sampler, self.eta))

    def times(self, model: Ddpm) -> list[int]:
        """The t that are shown: of those that the chain visits, the nearest to what was asked."""
        visited = self.visited(model)
        asked = self.t or [max(1, scaled(model, t)) for t in PAPER]
        nearest = [min(visited, key=lambda v, t=t: abs(v - t)) for t in asked]  # type: ignore[misc]
        return list(dict.fromkeys(nearest))

    def latents(
        self, model: Ddpm, progress: Progress | None = None
    ) -> dict[int, Float[Tensor, "n c h w"]]:
        """x_t of each chain, by t."""
        recorder = LatentRecorder(self.n, model.format.shape, self.times(model))
        told = in_part(progress, "to x_t")
        model.sample(self.n, **self.how(model), callback=recorder, progress=told)
        return recorder.kept

    def samples(
        self, model: Ddpm, x_t: Float[Tensor, "n c h w"], t: int, progress: Progress | None = None
    ) -> UInt8[Tensor, "n b c h w"]:
        """Three samples from each x_t, none with the noise of the chain that led there."""
        numbers = torch.arange(self.n, self.n + self.n * BRANCHES)
        repeated = x_t.repeat_interleave(BRANCHES, dim=0)
        how = {**self.how(model), "numbers": numbers.tolist()}
        found = denoise(model, repeated, t, **how, progress=progress)
        return found.unflatten(0, (self.n, BRANCHES))

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A column a t, a row a chain; each a block of four."""
        self.check(model)
        columns = []
        latents = self.latents(model, progress)
        scale = enlargement(model.format, 2 * len(latents))
        for t, x_t in latents.items():
            samples = self.samples(model, x_t, t, in_part(progress, f"from t = {t:,}"))
            ends = model.format.from_unit(x_t)
            blocks = [
                image_grid(torch.cat([around, end[None]]), model.format, columns=2, scale=scale)
                for around, end in zip(samples, ends, strict=True)
            ]
            columns.append(titled(stacked(blocks, 8), f"x_t shared at t = {t:,}"))
        shown = ", ".join(f"{t:,}" for t in latents)
        return Drawn(
            beside(columns),
            f"three samples from one x_t at t = {shown} (of {model.diffusion.num_timesteps:,}), "
            "and that x_t in the lower right",
        )
