"""Samplers: one a file, one signature (`Sampler`), one callback.

A sampler is made with what is special about it and then called:
`Ddim(eta=0.5)(diffusion, denoiser, x, noise)`.
"""

import inspect
from typing import cast

from ddpm.errors import check
from ddpm.registry import lookup
from ddpm.sampling.ancestral import Ancestral
from ddpm.sampling.base import Callback, NoiseSource, Sampler, SampleState
from ddpm.sampling.ddim import Ddim
from ddpm.sampling.dpm_solver import DpmSolver
from ddpm.sampling.langevin import Langevin


def get_sampler(sampler: str | Sampler, eta: float | None = None) -> Sampler:
    """The sampler registered under a name, with its defaults; a sampler is returned as it is.

    Args:
        sampler: which.
        eta: the noise of ddim; no other sampler has one.

    Raises:
        DdpmError: the name is unknown, and the known ones are listed; or an eta is out of place.
    """
    if eta is not None:
        check(sampler == "ddim", f"--eta (eta=) belongs to the sampler ddim, not to {sampler}")
        return Ddim(eta)
    if not isinstance(sampler, str):
        check(callable(sampler), f"{sampler!r} is no sampler; name one or give a ddpm.Sampler")
        return sampler
    found = lookup("sampler", sampler)
    return cast(Sampler, found() if inspect.isclass(found) else found)


def uses_variance(sampler: Sampler) -> bool:
    """Whether the variance of the reverse step makes a difference; ours but one have none."""
    return not isinstance(sampler, Ddim | DpmSolver | Langevin)


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
    "uses_variance",
]
