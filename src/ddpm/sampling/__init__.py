"""Samplers: one a file, one signature (`Sampler`), one callback.

A sampler is made with what is special about it and then called:
`Ddim(eta=0.5)(diffusion, denoiser, x, noise)`.
"""

import inspect
from typing import cast

from ddpm.registry import lookup
from ddpm.sampling.ancestral import Ancestral
from ddpm.sampling.base import Callback, NoiseSource, Sampler, SampleState
from ddpm.sampling.ddim import Ddim
from ddpm.sampling.dpm_solver import DpmSolver
from ddpm.sampling.langevin import Langevin


def get_sampler(sampler: str | Sampler) -> Sampler:
    """The sampler registered under a name, with its defaults; a sampler is returned as it is.

    Raises:
        DdpmError: the name is unknown; lists the known ones.
    """
    if not isinstance(sampler, str):
        return sampler
    found = lookup("sampler", sampler)
    return cast(Sampler, found() if inspect.isclass(found) else found)


__all__ = [
    "Ancestral",
    "Callback",
    "Ddim",
    "DpmSolver",
    "Langevin",
    "NoiseSource",
    "SampleState",
    "Sampler",
    "get_sampler",
]
