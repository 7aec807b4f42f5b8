"""A plan: how many steps a chain takes, at which timesteps, and with what variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ddpm.diffusion.gaussian import GaussianDiffusion, VarianceType
from ddpm.errors import DdpmError, check
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.trajectory import (
    Timesteps,
    even_timesteps,
    optimal_timesteps,
    quadratic_timesteps,
)

TrajectoryName = Literal["even", "quadratic", "optimal"]


@dataclass(frozen=True)
class Plan:
    """How the reverse chain of a trained model is run.

    Raises:
        DdpmError: an unknown name, or steps below 1.
    """

    steps: int | None = None
    """Timesteps to visit; all T of the model by default."""
    trajectory: TrajectoryName | tuple[int, ...] = "even"
    """Which timesteps: even, quadratic, optimal (of least bits), or the timesteps themselves."""
    variance: VarianceType | None = None
    """fixed_small, fixed_large or analytic; the model's own by default."""

    def __post_init__(self) -> None:
        check(
            self.steps is None or self.steps >= 1,
            f"the number of steps must be at least 1, got {self.steps}",
        )
        if not isinstance(self.trajectory, str):
            object.__setattr__(self, "trajectory", tuple(map(int, self.trajectory)))
            check(
                self.steps in (None, len(self.trajectory)),
                f"steps is {self.steps}, but {len(self.trajectory)} timesteps are given",
            )
        for value, options, what in (
            (self.trajectory, get_args(TrajectoryName), "trajectory"),
            (self.variance, get_args(VarianceType), "variance"),
        ):
            if isinstance(value, str) and value not in options:
                raise DdpmError(f"unknown {what} '{value}'; choose from {', '.join(options)}")

    def needs_denoising_error(self, diffusion: GaussianDiffusion) -> bool:
        """Whether the model's denoising error must have been measured."""
        analytic = self.variance == "analytic" != diffusion.variance_type
        return analytic or (self.trajectory == "optimal" and self.steps is not None)

    def chain(
        self, diffusion: GaussianDiffusion, error: DenoisingError | None
    ) -> GaussianDiffusion:
        """The chain that this plan makes of a model's whole one.

        Args:
            diffusion: all T steps.
            error: the model's denoising error; only read if `needs_denoising_error`.

        Raises:
            DdpmError: steps out of range, a variance that was not learned, or no error.
        """
        check(
            error is not None or not self.needs_denoising_error(diffusion),
            "an optimal trajectory and an analytic variance need the model's denoising error, "
            "which has not been measured; measure it on training images",
        )
        chain = diffusion
        if self.variance is not None and self.variance != diffusion.variance_type:
            check(
                not diffusion.learns_variance and not self.variance.startswith("learned"),
                f"this model was trained with variance_type '{diffusion.variance_type}' and cannot "
                f"use '{self.variance}'",
            )
            chain = diffusion.with_variance(self.variance, error.at if error else None)
        timesteps = self.timesteps(diffusion, error)
        return chain if timesteps is None else chain.respace(timesteps)

    def timesteps(
        self, diffusion: GaussianDiffusion, error: DenoisingError | None
    ) -> Timesteps | Sequence[int] | None:
        """The timesteps to visit; None for all."""
        total = diffusion.num_timesteps
        if not isinstance(self.trajectory, str):
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
        return optimal_timesteps(diffusion.schedule, error, self.steps)
