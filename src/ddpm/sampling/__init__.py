"""Samplers: one a file, one signature, one callback.

A sampler is called as `sampler(diffusion, denoiser, x, noise, start=..., callback=...)`:

- `x`: the image at time `start`, [b, c, h, w]; standard normal noise when the chain is whole.
- `noise(i)`: standard normal noise for the step that leaves time index i.
- `start`: the time index of x, T-1 by default; that step is taken too.
- `callback(SampleState)`: called once a step, before the step is taken.

It returns x_0, not clipped. Fewer steps come from `diffusion.respace(...)`.
"""

from collections.abc import Callable

from ddpm.errors import DdpmError
from ddpm.sampling.ancestral import ancestral
from ddpm.sampling.base import Callback, NoiseSource, SampleState
from ddpm.sampling.ddim import ddim
from ddpm.sampling.dpm_solver import dpm_solver
from ddpm.sampling.langevin import langevin

SAMPLERS: dict[str, Callable[..., object]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpm-solver": dpm_solver,
    "langevin": langevin,
}


def get_sampler(name: str) -> Callable[..., object]:
    """The sampler called `name`, or a DdpmError that lists the known ones."""
    if name not in SAMPLERS:
        raise DdpmError(f"unknown sampler '{name}'; choose from {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


__all__ = [
    "SAMPLERS",
    "Callback",
    "NoiseSource",
    "SampleState",
    "ancestral",
    "ddim",
    "dpm_solver",
    "get_sampler",
    "langevin",
]
