"""All figures by name, in the order of the paper."""

from __future__ import annotations

from ddpm.errors import check
from ddpm.figures.classes import Classes
from ddpm.figures.coarse_to_fine import CoarseToFine
from ddpm.figures.denoising import Denoising
from ddpm.figures.figure import Figure
from ddpm.figures.interpolation import Interpolation
from ddpm.figures.neighbours import Neighbours
from ddpm.figures.probe import Probe
from ddpm.figures.progressive import Progressive
from ddpm.figures.progressive_quality import ProgressiveQuality
from ddpm.figures.rate_distortion import RateDistortion
from ddpm.figures.samples import Samples
from ddpm.figures.schedule import Schedule
from ddpm.figures.shared_latents import SharedLatents

FIGURES: dict[str, type[Figure]] = {
    "samples": Samples,
    "rate-distortion": RateDistortion,
    "progressive": Progressive,
    "shared-latents": SharedLatents,
    "interpolation": Interpolation,
    "coarse-to-fine": CoarseToFine,
    "progressive-quality": ProgressiveQuality,
    "neighbours": Neighbours,
    "denoising": Denoising,
    "schedule": Schedule,
    "classes": Classes,
    "probe": Probe,
}


def figure_named(name: str) -> type[Figure]:
    """The figure of a name.

    Raises:
        DdpmError: there is none; lists them.
    """
    check(name in FIGURES, f"there is no figure '{name}'; choose from {', '.join(FIGURES)}")
    return FIGURES[name]
