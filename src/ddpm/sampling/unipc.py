"""UniPC (Zhao et al. 2023): a predictor and a corrector of one form, one network call a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import check
from ddpm.registry import register
from ddpm.sampling.base import Callback, NoiseSource, predict, reverse_indices

Variant = Literal["bh1", "bh2"]
ORDERS = (2, 3)
TERMS = 20  # of the series of phi_k where |z| < 1: more than float64 can tell


class _Known(NamedTuple):
    """A predicted x_0 and the lambda = log(alpha / sigma) that it was predicted at."""

    place: float
    x_start: Tensor


@dataclass(frozen=True)
class _Step:
    """A step t -> s, which is predicted first and corrected when D_s is known.

    Args:
        x: x_t.
        known: D_t, and those before it that the predictor uses, the newest first; none of them
            where lambda_t is -inf.
        end: lambda_s.
        alpha, shrunk: alpha_s and sigma_s / sigma_t.
    """

    x: Tensor
    known: Sequence[_Known]
    end: float
    alpha: float
    shrunk: float

    @property
    def corrects(self) -> bool:
        """Whether its length is finite."""
        return math.isfinite(self.known[0].place)

    def taken(self, variant: Variant, last: Tensor | None = None) -> Tensor:
        """x_s, predicted; or corrected with D_s, `last`."""
        (start, now), *before = self.known
        h = self.end - start
        x = self.shrunk * self.x - self.alpha * math.expm1(-h) * now
        others = [*before] if last is None else [*before, _Known(self.end, last)]
        offsets = [(place - start) / h for place, _ in others]
        for weight, (_, other) in zip(step_weights(offsets, h, variant), others, strict=True):
            x = x - self.alpha * weight * (other - now)
        return x


@register("sampler", "unipc")
@dataclass(frozen=True)
class UniPc:
    """Solve the probability-flow ODE with a multistep method on x_0 and correct every step.

    In lambda = log(alpha / sigma), with alpha = sqrt(abar), a step t -> s over h is

        x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D_t - alpha_s sum_i w_i (D_i - D_t),

    where the D_i are x_0 predicted at other times, and the weights make the step exact if x_0 is a
    polynomial of lambda. The predictor knows the D_i of earlier steps; the corrector also D_s,
    predicted at the x_s that the predictor gave, which the next step starts from in any case: it
    costs no call.

    The first steps, which have nothing before them, and the last ones are of lower order; the step
    to the clean image is D_t. A step out of pure noise (lambda = -inf) is of order one and is not
    corrected. Noise is not used.

    Args:
        order: of the predictor, 2 or 3; the corrector has one more.
        variant: B(h) of the paper, h (bh1) or e^h - 1 (bh2), which is felt where one other x_0 is
            known: its weight is rounded to B(h) / 2.

    Raises:
        DdpmError: another order or variant.
    """

    order: int = 2
    variant: Variant = "bh2"

    def __post_init__(self) -> None:
        check(self.order in ORDERS, f"the order of unipc must be 2 or 3, got {self.order}")
        names = get_args(Variant)
        check(
            self.variant in names,
            f"unknown variant '{self.variant}' of unipc; choose from {', '.join(names)}",
        )

    def __call__(
        self,
        diffusion: GaussianDiffusion,
        denoiser: Denoiser,
        x: Tensor,
        noise: NoiseSource,
        *,
        start: int | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """See `ddpm.Sampler`; the callback sees x as it was predicted."""
        schedule = diffusion.schedule
        alpha, sigma = schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod
        place = log_signal(schedule)
        known: list[_Known] = []
        step: _Step | None = None
        for index in reverse_indices(diffusion, start):
            p, _ = predict(diffusion, denoiser, x, index, callback)
            if index == 0:
                return p.pred_xstart
            s = index - 1
            if alpha[s] == 0:  # from pure noise to pure noise
                continue
            if step is not None and step.corrects:
                x = step.taken(self.variant, p.pred_xstart)
            known = [_Known(place[index], p.pred_xstart), *known[: self.order - 1]]
            used = [k for k in known if math.isfinite(k.place)][: index + 1] or known[:1]
            step = _Step(x, used, place[s], float(alpha[s]), float(sigma[s] / sigma[index]))
            x = step.taken(self.variant)
        return x


# Beside `unipc`, for the command line.
register("sampler", "unipc3")(UniPc(order=3))


def log_signal(schedule: NoiseSchedule) -> list[float]:
    """lambda = log(alpha / sigma) at every time index; -inf where there is no signal."""
    with np.errstate(divide="ignore"):
        return [float(value) for value in 0.5 * np.log(schedule.snr)]


def step_weights(offsets: Sequence[float], h: float, variant: Variant) -> list[float]:
    """The w_i of a step over h: those of one other x_0 as the paper rounds them, else exact.

    Args:
        offsets: of the other predictions from the beginning of the step, in units of h: negative
            before it, 1 at its end.
        h: its length.
        variant: which B(h).
    """
    if not offsets:
        return []
    if len(offsets) == 1:
        return [0.5 * (-h if variant == "bh1" else math.expm1(-h)) / offsets[0]]
    powers = np.array([[r**k for r in offsets] for k in range(1, len(offsets) + 1)])
    wanted = [math.factorial(k) * -h * phi(k + 1, -h) for k in range(1, len(offsets) + 1)]
    return [float(weight) for weight in np.linalg.solve(powers, np.array(wanted))]


def phi(k: int, z: float) -> float:
    """phi_0 = e^z and phi_k = (phi_{k-1} - 1/(k-1)!) / z: the moments of an exponential step."""
    if abs(z) < 1:  # where the differences cancel
        return sum(z**j / math.factorial(j + k) for j in range(TERMS))
    value = math.expm1(z) / z
    for order in range(2, k + 1):
        value = (value - 1 / math.factorial(order - 1)) / z
    return value
