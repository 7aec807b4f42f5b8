"""The noise schedule: beta_t and every constant derived from it, in float64 (paper Eq. 2-7).

Time is counted from 0 to T-1 as in the authors' code: t = 0 is an image diffused for one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ddpm.errors import DdpmError, check, whole_number

Array = NDArray[np.float64]
MOST = 1_000_000  # timesteps, far more than any model has
TINY = 1e-6  # ratios below which 1 - beta has lost too many digits


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I) (Eq. 2).

    Every attribute but `timesteps` is a float64 array of shape [T] under the name it has in the
    field.

    Args:
        betas: [T] forward variances, each in (0, 1]; 1 is allowed only in the last place.
        timesteps: [T] what the network is told for each step; 0..T-1 unless respaced.
        ratios: [T] of a respaced chain, 1 - beta_t where that is too small for a beta to tell.

    Raises:
        DdpmError: betas are empty, not a vector, no finite numbers, out of range, or one of them is
            lost in rounding.
    """

    betas: Array
    timesteps: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ratios: Array | None = None

    alphas: Array = field(init=False)
    alphas_cumprod: Array = field(init=False)
    alphas_cumprod_prev: Array = field(init=False)
    sqrt_alphas_cumprod: Array = field(init=False)
    sqrt_one_minus_alphas_cumprod: Array = field(init=False)
    log_one_minus_alphas_cumprod: Array = field(init=False)
    sqrt_recip_alphas_cumprod: Array = field(init=False)
    sqrt_recipm1_alphas_cumprod: Array = field(init=False)
    posterior_variance: Array = field(init=False)
    posterior_log_variance_clipped: Array = field(init=False)
    posterior_mean_coef1: Array = field(init=False)
    posterior_mean_coef2: Array = field(init=False)
    fixed_large_variance: Array = field(init=False)

    def __post_init__(self) -> None:
        betas = numbers("betas", self.betas)
        check(betas.ndim == 1 and betas.size > 0, "betas must be a vector with at least one entry")
        check(bool(np.isfinite(betas).all()), "betas must all be finite numbers")
        bad = np.flatnonzero((betas <= 0) | (betas > 1))
        if bad.size:
            raise DdpmError(
                f"betas must lie in (0, 1], but betas[{bad[0]}] is {betas[bad[0]]:g}; "
                "lower beta_end or raise beta_start"
            )
        check(
            self.ratios is not None or bool((betas[:-1] < 1).all()),
            "a beta of 1 erases the image, so only the last beta may be 1",
        )
        steps = np.array(self.timesteps, dtype=np.int64)
        if steps.size == 0:
            steps = np.arange(betas.size)
        check(steps.shape == betas.shape, "timesteps must have as many entries as betas")

        alphas = 1.0 - betas
        if self.ratios is not None:
            alphas = np.where(self.ratios < TINY, self.ratios, alphas)
        abar = np.cumprod(alphas).astype(np.float64)
        _refuse_lost(betas, abar)
        abar_prev = np.append(1.0, abar[:-1])
        variance = betas * (1.0 - abar_prev) / (1.0 - abar)  # Eq. 7, beta~_t
        # beta~_0 is 0, so its entry is replaced by the next one, as in the authors' code.
        replacement = variance[1] if betas.size > 1 else betas[0]
        # jsd ends at abar_T = 0, and others all but: the reciprocal is infinite.
        with np.errstate(divide="ignore", over="ignore"):
            recip = 1.0 / abar
        derived = {
            "betas": betas,
            "timesteps": steps,
            "alphas": alphas,
            "alphas_cumprod": abar,
            "alphas_cumprod_prev": abar_prev,
            "sqrt_alphas_cumprod": np.sqrt(abar),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - abar),
            "log_one_minus_alphas_cumprod": np.log(1.0 - abar),
            "sqrt_recip_alphas_cumprod": np.sqrt(recip),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(recip - 1.0),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.append(replacement, variance[1:])),
            "posterior_mean_coef1": betas * np.sqrt(abar_prev) / (1.0 - abar),  # Eq. 7
            "posterior_mean_coef2": (1.0 - abar_prev) * np.sqrt(alphas) / (1.0 - abar),  # Eq. 7
            "fixed_large_variance": np.append(replacement, betas[1:]),
        }
        for name, value in derived.items():
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def num_timesteps(self) -> int:
        """T, the number of diffusion steps."""
        return int(self.betas.size)

    @property
    def snr(self) -> Array:
        """[T], the signal-to-noise ratio abar_t / (1 - abar_t) of x_t."""
        return self.alphas_cumprod / (1.0 - self.alphas_cumprod)

    @property
    def bound_weights(self) -> Array:
        """[T], what the bound multiplies E|eps - eps_theta|^2 by at each t, in nats (Eq. 12).

        With variance beta~_t this is half of SNR(t-1) / SNR(t) - 1. At t = 0, where beta~ is 0, it
        is that of a Gaussian around x^_0 with the variance that stands in for beta~_0.
        """
        snr = self.snr
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            steps = snr[:-1] / snr[1:] - 1.0
        return 0.5 * np.append(1.0 / (snr[0] * self.fixed_large_variance[0]), steps)

    def respace(self, timesteps: Sequence[int] | NDArray[np.int64]) -> NoiseSchedule:
        """The shorter chain that visits only `timesteps` and has the same marginals there.

        Args:
            timesteps: strictly increasing indices into this schedule, the last T-1 as a rule.

        Returns:
            A schedule of len(timesteps) steps whose `timesteps` tell the network the old times.

        Raises:
            DdpmError: there are none, they do not increase, or are out of range.
        """
        steps = np.asarray(timesteps, dtype=np.int64)
        check(steps.ndim == 1 and steps.size > 0, "a trajectory needs at least one timestep")
        check(
            bool((np.diff(steps) > 0).all() and steps[0] >= 0 and steps[-1] < self.num_timesteps),
            f"timesteps must increase and lie in 0..{self.num_timesteps - 1}",
        )
        if steps.size == self.num_timesteps:
            return self
        abar = self.alphas_cumprod[steps]
        before = np.append(1.0, abar[:-1])
        # From pure noise to pure noise any beta leads; 1 is one.
        ratios = np.divide(abar, before, out=np.zeros_like(abar), where=before > 0)
        return NoiseSchedule(1.0 - ratios, self.timesteps[steps], ratios)


def numbers(name: str, values: object) -> Array:
    """As float64, a copy; refused under its name if that is not possible."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DdpmError(f"{name} must be a vector of numbers, got {repr(values)[:60]}") from None


def _refuse_lost(betas: Array, abar: Array) -> None:
    """Refuse betas of which one is so small that abar does not fall."""
    # Below the normal numbers none is long enough to fall by a small part of itself.
    normal = abar >= np.finfo(np.float64).tiny
    lost = np.flatnonzero((np.diff(abar, prepend=1.0) >= 0) & normal)
    if lost.size:
        at = f"betas[{lost[0]}] is {betas[lost[0]]:g}, so small that "
        raise DdpmError(
            f"{at}abar is 1 and x_1 has no noise in it; make it 1e-12 or more"
            if lost[0] == 0
            else f"{at}abar is the same before and after, and x_t has no more noise than "
            "x_{t-1}; make it 1e-12 or more"
        )


def _warmup(start: float, end: float, total: int, fraction: float) -> Array:
    betas = np.full(total, end, dtype=np.float64)
    length = int(total * fraction)
    betas[:length] = np.linspace(start, end, length, dtype=np.float64)
    return betas


def _cosine(total: int) -> Array:
    """Nichol & Dhariwal 2021, Eq. 17, with their offset 0.008 and ceiling 0.999."""
    time = np.arange(total + 1) / total
    abar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1.0 - abar[1:] / abar[:-1], 0.999)


def _even_log_snr(betas: Array, total: int) -> Array:
    """Betas of a chain of `total` steps from the first noise level of another to its last, the log
    signal-to-noise ratio falling evenly."""
    abar = np.cumprod(1.0 - betas)[[0, -1]]
    check(
        bool(abar[1] > 0),
        "a learned schedule cannot begin with one that ends in pure noise; lower beta_end",
    )
    first, last = np.log(abar) - np.log1p(-abar)
    log_abar = -np.logaddexp(0.0, -np.linspace(first, last, total))
    return -np.expm1(np.diff(log_abar, prepend=0.0))


ScheduleName = Literal[
    "linear", "quad", "const", "warmup10", "warmup50", "jsd", "cosine", "sigmoid", "learned"
]
SCHEDULES: tuple[str, ...] = get_args(ScheduleName)


def make_schedule(
    name: str = "linear",
    timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
) -> NoiseSchedule:
    """A schedule by name; the defaults are the paper's.

    Args:
        name: one of `SCHEDULES`. linear, quad, const, warmup10, warmup50 and jsd are the authors';
            cosine is Nichol & Dhariwal's; sigmoid lets beta follow a logistic curve over [-6, 6];
            learned is what a learned schedule begins with: from the first noise level of the
            linear one of 1,000 steps to its last, log SNR falling evenly.
        timesteps: T. The betas are not rescaled with T, as in the paper.
        beta_start: first variance; cosine, const and jsd do not use it.
        beta_end: last variance; cosine and jsd do not use it.

    Raises:
        DdpmError: unknown name, T out of range, or betas out of range.
    """
    timesteps = whole_number("the number of diffusion steps T", timesteps, 1)
    check(timesteps <= MOST, f"T must be at most {MOST:,}, got {timesteps:,}")
    check(
        all(isinstance(x, Real) for x in (beta_start, beta_end))
        and 0 < beta_start <= beta_end <= 1,
        f"betas need 0 < beta_start <= beta_end <= 1, got {beta_start!r} and {beta_end!r}",
    )
    if name == "linear":
        betas = np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)
    elif name == "quad":
        betas = np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2
    elif name == "const":
        betas = np.full(timesteps, beta_end, dtype=np.float64)
    elif name == "warmup10":
        betas = _warmup(beta_start, beta_end, timesteps, 0.1)
    elif name == "warmup50":
        betas = _warmup(beta_start, beta_end, timesteps, 0.5)
    elif name == "jsd":
        betas = 1.0 / np.linspace(timesteps, 1, timesteps, dtype=np.float64)
    elif name == "cosine":
        betas = _cosine(timesteps)
    elif name == "sigmoid":
        logistic = 1.0 / (1.0 + np.exp(-np.linspace(-6, 6, timesteps)))
        betas = beta_start + (beta_end - beta_start) * logistic
    elif name == "learned":
        betas = _even_log_snr(np.linspace(beta_start, beta_end, 1000, dtype=np.float64), timesteps)
    else:
        raise DdpmError(f"unknown schedule '{name}'; choose from {', '.join(SCHEDULES)}")
    return NoiseSchedule(betas)


def schedule_from_betas(betas: Sequence[float] | Array) -> NoiseSchedule:
    """A schedule from betas given directly.

    Args:
        betas: [T], each in (0, 1]; 1 is allowed only in the last place.

    Raises:
        DdpmError: betas out of range.
    """
    return NoiseSchedule(numbers("betas", betas))
