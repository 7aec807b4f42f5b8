"""What drawing makes of its arguments: a sampler, and a plan without gaps."""

from __future__ import annotations

from dataclasses import replace

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.errors import check
from ddpm.likelihood.denoising_error import UNCALIBRATED, DenoisingError
from ddpm.likelihood.plan import Plan, Use
from ddpm.sampling import Sampler, get_sampler, is_deterministic, knows_rotation, uses_variance


def sampler_and_plan(
    diffusion: GaussianDiffusion,
    error: DenoisingError | None,
    sampler: str | Sampler,
    plan: Plan | None,
    steps: int | None,
    eta: float | None,
    calibrate: bool = True,
) -> tuple[Sampler, Plan]:
    """The sampler that is named, and the plan that suits it best where nothing is said.

    Args:
        diffusion: all T steps.
        error: the model's denoising error, if it is known.
        sampler, plan, steps, eta: see `ddpm.Ddpm.sample`.
        calibrate: whether samplers that add no noise are calibrated where nothing is said.

    Raises:
        DdpmError: an unknown sampler, or arguments that do not go together.
    """
    check(plan is None or steps is None, "give a plan or steps, not both")
    check(
        plan is None or isinstance(plan, Plan),
        f"{plan!r} is no plan; give a ddpm.Plan, such as ddpm.Plan(steps=50)",
    )
    draw, plan = get_sampler(sampler, eta), plan or Plan(steps)
    named = getattr(sampler, "__name__", type(sampler).__name__)
    name = sampler if isinstance(sampler, str) else named
    check(
        plan.variance is None or uses_variance(draw),
        f"{name} adds no noise of the reverse step, so --variance has no effect; leave it out",
    )
    check(
        plan.variance != "spectral" or knows_rotation(draw),
        f"{name} takes the variance to be that of pixels, and 'spectral' is in other coordinates; "
        "draw with diffusion.p_sample and set knows_rotation on the sampler, or choose 'analytic'",
    )
    known = error is not None and error.calibration is not None
    check(known or not plan.calibrated, UNCALIBRATED)
    if not known:
        plan = replace(plan, calibrated=None)
    elif plan.calibrated is None and calibrate and is_deterministic(draw):
        plan = replace(plan, calibrated=True)
    use: Use = "noisy" if uses_variance(draw) else "smooth"
    return draw, plan.resolved(diffusion, error is not None, use)
