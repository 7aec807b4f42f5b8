"""How many bits a model needs for images that it was not trained on."""

from __future__ import annotations

import torch

from ddpm.data.images import ImageSource
from ddpm.likelihood.held_out import HeldOut
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress

STEPS = 50  # of the chain whose bound it is
IMAGES = 64  # of 32x32 pixels, and fewer larger ones


def judging_plan(model: Ddpm) -> Plan:
    """The chain that images are judged with: the best known of STEPS steps."""
    return Plan(min(STEPS, model.diffusion.num_timesteps))


def judged(model: Ddpm, source: ImageSource) -> int:
    """How many images of the source are measured."""
    return min(model.format.batch(IMAGES), len(source))


def measure_held_out(model: Ddpm, source: ImageSource, progress: Progress | None = None) -> HeldOut:
    """The first IMAGES of the source, one by one.

    Args:
        model: that is to be judged by.
        source: images of its format that it was not trained on.
        progress: counts the network's evaluations.
    """
    images = source[torch.arange(judged(model, source))]
    bound = model.bound(images, plan=judging_plan(model), progress=progress)
    return HeldOut(tuple(map(float, bound.total)), source.name)
