"""What every figure of the paper is: its own options, and a method that draws it of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageSource, Indexed
from ddpm.data.inputs import ImageLike, as_indexed
from ddpm.data.open import Split
from ddpm.errors import DdpmError, check, whole_number
from ddpm.likelihood.plan import Plan
from ddpm.model import DRAWN, Ddpm
from ddpm.runtime.progress import Progress


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Args:
        picture: RGB.
        caption: what it shows, in a sentence or two without the last full stop.
    """

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Figure(ABC):
    """One of the paper's figures; a subclass has an option for everything that it depends on."""

    shows: ClassVar[str]
    """One line about it, for the list of all figures."""
    split: ClassVar[Split | None] = None
    """Of a model's own data, the part whose images it shows; None for figures without images."""
    network: ClassVar[bool] = True
    """Whether the network is called."""
    every_class: ClassVar[bool] = False
    """Whether it shows all classes of a model, rather than one that may be chosen."""

    @property
    def wanted(self) -> int | None:
        """How many images it needs; None for a whole set."""
        return 0

    def check(self, model: Ddpm) -> None:
        """Refuse options that do not fit the model, before any work.

        Raises:
            DdpmError: says which, and what would fit.
        """
        return  # a figure may have nothing to refuse

    @abstractmethod
    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """Make the figure.

        Args:
            model: a trained one.
            images: of its format, at least `wanted` of them, of which the first are taken; a
                uint8 tensor [n, c, h, w], a data source, or anything of
                `ddpm.data.inputs.ImageLike`.
            progress: counts network calls.

        Raises:
            DdpmError: options or images that do not fit the model.
        """

    def first_images(self, model: Ddpm, images: ImageLike | Indexed) -> UInt8[Tensor, "n c h w"]:
        """As many images as it needs.

        Raises:
            DdpmError: there are none or too few, or they are of another format.
        """
        count = self.wanted or 0
        found = self.all_images(model, images)
        there = len(found)
        name = f" of {found.name}" if isinstance(found, ImageSource) else ""
        check(
            there >= count,
            f"this figure needs {count:,} image{'s' * (count > 1)}, and there "
            f"{'is' if there == 1 else 'are'} {there:,}{name}",
        )
        chosen = found[torch.arange(count)]
        model.format.check(chosen)
        return chosen

    def all_images(self, model: Ddpm, images: ImageLike | Indexed) -> Indexed:
        """The images that were given, to be read by index.

        Raises:
            DdpmError: none were given, or they are of another format.
        """
        if images is None:
            raise DdpmError("this figure needs images")
        return as_indexed(images, model.format)


@dataclass(frozen=True)
class SampledFigure(Figure):
    """A figure whose images are drawn with any sampler and plan."""

    sampler: str = "ancestral"
    """ancestral (the paper's Algorithm 2), ddim, dpm-solver, unipc, unipc3, heun or langevin."""
    plan: Plan = field(default_factory=Plan)
    eta: float | None = None
    """Noise of ddim: 0 is deterministic (the default), 1 is ancestral-like."""
    seed: int = 0
    """Decides all noise."""
    batch_size: int | None = None
    """Images at a time; 64 by default, or fewer large ones."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("the seed", self.seed, 0)
        whole_number("batch_size", at_a_time(model, self.batch_size), 1)
        _, plan = model.plan_samples(self.sampler, self.plan, eta=self.eta)
        model.chain(plan)

    def how(self, model: Ddpm) -> dict[str, Any]:
        """The options as `Ddpm.sample` and `ddpm.latents.denoise` take them."""
        return {
            "seed": self.seed,
            "sampler": self.sampler,
            "plan": self.plan,
            "eta": self.eta,
            "batch_size": at_a_time(model, self.batch_size),
        }

    def visited(self, model: Ddpm) -> list[int]:
        """Every t at which the network is called, falling, from T to 1 where all are."""
        _, plan = model.plan_samples(self.sampler, self.plan, eta=self.eta)
        return (model.chain(plan).schedule.timesteps[::-1] + 1).tolist()


def at_a_time(model: Ddpm, batch_size: int | None) -> int:
    """Images in one network call: as many as are asked for, or what fits images of their size."""
    return model.format.batch(DRAWN) if batch_size is None else batch_size


def in_part(progress: Progress | None, part: str) -> Progress | None:
    """A `Progress` that says which part of the work it is."""
    if progress is None:
        return None

    def told(done: int, total: int, label: str) -> None:
        progress(done, total, f"{label}: {part}")

    return told


def scaled(model: Ddpm, of_thousand: int) -> int:
    """A number of steps of diffusion out of the paper's 1,000, for this model's T."""
    return round(of_thousand * model.diffusion.num_timesteps / 1000)


def check_time(model: Ddpm, t: int, low: int = 0) -> None:
    """Refuse a number of steps of diffusion that the model does not have."""
    total = model.diffusion.num_timesteps
    check(
        low <= t <= total,
        f"t counts steps of diffusion and must lie in {low}..{total} for this model, got {t}",
    )
