"""Which chain passes through x_t, and at which of its time indices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.errors import check, whole_number
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm


def check_level(model: Ddpm, t: int) -> int:
    """t as a number of steps of diffusion, 0..T.

    Raises:
        DdpmError: it is no whole number, or out of range.
    """
    total = model.diffusion.num_timesteps
    t = whole_number("the steps of diffusion t", t, 0)
    check(t <= total, f"the steps of diffusion t must lie in 0..{total}, got {t}")
    return t


def chain_through(model: Ddpm, plan: Plan, t: int) -> tuple[GaussianDiffusion, int]:
    """The chain of a plan, made to pass through x_t, and the time index of x_t in it.

    A chain of fewer steps rarely visits timestep t - 1. It is added to those of the plan, so that
    x_t lies exactly at one of the chain's levels; the step from it is as long as the variance of
    its reverse says.

    Args:
        model: the whole chain.
        plan: without gaps, as `Ddpm.plan_samples` gives it.
        t: steps of diffusion, 1..T.
    """
    chain = model.chain(plan)
    timesteps = chain.schedule.timesteps
    if t - 1 not in timesteps:
        timesteps = np.union1d(timesteps, [t - 1])
        chain = model.chain(replace(plan, steps=None, trajectory=tuple(timesteps.tolist())))
    return chain, int(np.searchsorted(timesteps, t - 1))
