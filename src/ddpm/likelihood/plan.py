"""A plan: how many steps a chain takes, at which timesteps, and with what variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ddpm.diffusion.gaussian import GaussianDiffusion, VarianceType
from ddpm.errors import DdpmError, check, whole_number
from ddpm.likelihood.denoising_error import UNCALIBRATED, DenoisingError
from ddpm.likelihood.spectral_error import UNROTATED
from ddpm.likelihood.trajectory import (
    Timesteps,
    even_timesteps,
    optimal_timesteps,
    quadratic_timesteps,
    smooth_timesteps,
)

TrajectoryName = Literal["even", "quadratic", "optimal", "smooth"]
Use = Literal["bits", "noisy", "smooth"]
ENOUGH = 50  # network calls from which on the trajectory of least bits also draws best


@dataclass(frozen=True)
class Plan:
    """How the reverse chain of a trained model is run.

    Raises:
        DdpmError: an unknown name, or steps below 1.
    """

    steps: int | None = None
    """Timesteps to visit; all T of the model by default."""
    trajectory: TrajectoryName | tuple[int, ...] | None = None
    """Which timesteps: even, quadratic, optimal (of least bits), smooth (of least error without
    noise), or the timesteps themselves; the best known for that many steps by default."""
    variance: VarianceType | None = None
    """fixed_small, fixed_large, analytic (the best for each pixel, by the measured errors) or
    spectral (for each principal colour and frequency); by default the model's own for all steps,
    and the best known for fewer."""
    calibrated: bool | None = None
    """Correct every predicted x_0 by what `ddpm measure` found of its errors (--calibrated,
    --no-calibrated); by default with samplers that add no noise, if it was measured."""

    def __post_init__(self) -> None:
        if self.steps is not None:
            steps = whole_number("the number of steps", self.steps, 1)
            object.__setattr__(self, "steps", steps)
        if isinstance(self.trajectory, str):
            self._check_name(self.trajectory, TrajectoryName, "trajectory")
            check(
                self.steps is not None,
                f"a trajectory ({self.trajectory}) chooses among the timesteps; say how many with "
                "--steps (steps=), or leave it out and all are visited",
            )
        elif self.trajectory is not None:
            object.__setattr__(self, "trajectory", tuple(map(int, self.trajectory)))
            check(
                self.steps in (None, len(self.trajectory)),
                f"steps is {self.steps}, but {len(self.trajectory)} timesteps are given",
            )
        if self.variance is not None:
            self._check_name(self.variance, VarianceType, "variance")

    @staticmethod
    def _check_name(value: str, options: object, what: str) -> None:
        names = get_args(options)
        if value not in names:
            raise DdpmError(f"unknown {what} '{value}'; choose from {', '.join(names)}")

    def document(self) -> dict[str, Any]:
        """As results and pictures state it: without a word of `calibrated` where it is left out."""
        said = asdict(self)
        return {
            key: value for key, value in said.items() if key != "calibrated" or value is not None
        }

    def resolved(self, diffusion: GaussianDiffusion, measured: bool, use: Use = "bits") -> Plan:
        """The same plan with its defaults filled in: the best known (RESULTS.md) for its steps.

        Only `calibrated` stays as it is: see `ddpm.likelihood.sampling_plan`.

        Args:
            diffusion: all T steps.
            measured: whether the model's denoising error is known.
            use: bits, or samples that are drawn with the noise of the reverse step (noisy) or
                without (smooth).
        """
        own, total = diffusion.variance_type, diffusion.num_timesteps
        whole = self.trajectory is None and self.steps in (None, total)
        variance: VarianceType | None
        if use == "smooth":
            variance = self.variance
        elif whole or diffusion.learns_variance:
            variance = self.variance or own
        elif measured:
            variance = self.variance or "analytic"
        else:
            variance = self.variance or ("fixed_small" if use == "noisy" else own)
        if whole:
            return replace(self, steps=None, variance=variance)
        if self.trajectory is not None:
            return replace(self, variance=variance)
        least_bits = use == "bits" or (use == "noisy" and (self.steps or total) >= ENOUGH)
        best: TrajectoryName = "optimal" if least_bits else "smooth"
        return replace(self, trajectory=best if measured else "quadratic", variance=variance)

    def __str__(self) -> str:
        if isinstance(self.trajectory, tuple):
            which = f"{len(self.trajectory)} timesteps of your own"
        else:
            which = "all steps" if self.steps is None else f"{self.steps} {self.trajectory} steps"
        which += "" if self.variance is None else f", variance {self.variance}"
        return f"{which}, calibrated" if self.calibrated else which

    def needs_denoising_error(self, diffusion: GaussianDiffusion) -> bool:
        """Whether the model's denoising error must have been measured."""
        named = self.variance in ("analytic", "spectral")
        chosen = self.trajectory in ("optimal", "smooth") and self.steps is not None
        return (named and self.variance != diffusion.variance_type) or chosen

    def chain(
        self, diffusion: GaussianDiffusion, error: DenoisingError | None
    ) -> GaussianDiffusion:
        """The chain that this plan makes of a model's whole one; for bits where it says nothing.

        Args:
            diffusion: all T steps.
            error: the model's denoising error; only read if `needs_denoising_error`. Of a
                calibrated chain variance and optimal trajectory are those of the calibrated x_0.

        Raises:
            DdpmError: steps out of range, a variance that was not learned, no error, none in colour
                and frequency, or no calibration.
        """
        check(
            error is not None or not self.needs_denoising_error(diffusion),
            "an optimal or smooth trajectory and an analytic or spectral variance need the model's "
            "denoising error, which has not been measured; measure it on training images",
        )
        plan = self.resolved(diffusion, error is not None)
        if self.calibrated:
            if error is None or error.calibration is None:
                raise DdpmError(UNCALIBRATED)
            diffusion = diffusion.with_correction(error.calibration)
            error = error.calibrated if plan.needs_denoising_error(diffusion) else error
        chain = diffusion
        if plan.variance is not None and plan.variance != diffusion.variance_type:
            check(
                not diffusion.learns_variance and not plan.variance.startswith("learned"),
                f"this model was trained with variance_type '{diffusion.variance_type}' and cannot "
                f"use '{plan.variance}'",
            )
            chain = with_measured_variance(diffusion, plan.variance, error)
        timesteps = plan.timesteps(diffusion, error)
        return chain if timesteps is None else chain.respace(timesteps)

    def timesteps(
        self, diffusion: GaussianDiffusion, error: DenoisingError | None
    ) -> Timesteps | Sequence[int] | None:
        """The timesteps to visit; None for all."""
        total = diffusion.num_timesteps
        if isinstance(self.trajectory, tuple):
            check(
                self.trajectory[-1:] == (total - 1,),
                f"the timesteps must rise to T - 1 = {total - 1}, where there is noise only; got "
                f"{self.trajectory}",
            )
            return self.trajectory
        if self.steps is None:
            return None
        if self.trajectory == "even":
            return even_timesteps(total, self.steps)
        if self.trajectory == "quadratic":
            return quadratic_timesteps(total, self.steps)
        assert error is not None
        if self.trajectory == "smooth":
            return smooth_timesteps(diffusion.schedule, error, self.steps)
        spectral = self.variance == "spectral"
        return optimal_timesteps(diffusion.schedule, error, self.steps, spectral)


def with_measured_variance(
    diffusion: GaussianDiffusion, variance: VarianceType, error: DenoisingError | None
) -> GaussianDiffusion:
    """The same chain with a variance that is fixed, or follows from the measured error.

    Raises:
        DdpmError: the error in colour and frequency was not measured.
    """
    if variance != "spectral" or error is None:
        return diffusion.with_variance(variance, error.at if error else None)
    if error.spectral is None:
        raise DdpmError(UNROTATED)
    return diffusion.with_variance(variance, error.at, error.spectral.at, error.spectral.rotation)
