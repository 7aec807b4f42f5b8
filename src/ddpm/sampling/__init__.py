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
from ddpm.sampling.heun import Heun
from ddpm.sampling.langevin import Langevin
from ddpm.sampling.unipc import UniPc


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
    return not isinstance(sampler, Ddim | DpmSolver | Heun | Langevin | UniPc)


def knows_rotation(sampler: Sampler) -> bool:
    """Whether it may be given a variance in other coordinates than pixels."""
    return bool(getattr(sampler, "knows_rotation", False))


def is_deterministic(sampler: Sampler) -> bool:
    """Whether the image is a function of the noise that the chain begins with; of a sampler that is
    not ours this is not known, and False."""
    return isinstance(sampler, DpmSolver | Heun | UniPc) or sampler == Ddim(eta=0)


def network_calls(sampler: Sampler, steps: int) -> int:
    """How often a chain of so many steps calls the network."""
    if isinstance(sampler, Heun):
        return 2 * steps - 1
    return steps * int(getattr(sampler, "calls_per_step", 1))


__all__ = [
    "Ancestral",
    "Callback",
    "Ddim",
    "DpmSolver",
    "Heun",
    "Langevin",
    "NoiseSource",
    "SampleState",
    "Sampler",
    "UniPc",
    "get_sampler",
    "is_deterministic",
    "knows_rotation",
    "network_calls",
    "uses_variance",
]
