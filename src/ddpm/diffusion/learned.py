"""Forward variances that are learned (section 2: "by reparameterization"): a log signal-to-noise
ratio for each of the T steps, falling by construction.

lambda_t = log abar_t / (1 - abar_t), so that abar_t = sigmoid(lambda_t), and everything in Eq. 2-7
is a smooth function of lambda. The T - 1 differences are shares of the distance between the ends:

    lambda_t = lambda_0 - gap * (share_1 + ... + share_t),    sum of the shares = 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softmax

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import NoiseSchedule, numbers
from ddpm.errors import DdpmError, check

LogSnr = Float[Tensor, " T"]
PART = "forward_variances"  # what the part of a network is called that holds a learned schedule
SPAN = 10.0  # what lambda_0 moves by while a weight moves by 1: optimisers make them equally fast
FLOOR = 1e-3  # the least a share can be, times 1 / (T - 1): no two steps fall together


def log_snr(schedule: NoiseSchedule) -> NDArray[np.float64]:
    """[T], lambda_t of a schedule."""
    return np.log(schedule.alphas_cumprod) - schedule.log_one_minus_alphas_cumprod


def schedule_from_log_snr(values: Sequence[float] | NDArray[np.float64]) -> NoiseSchedule:
    """The schedule of given log signal-to-noise ratios.

    Args:
        values: [T], lambda_t, strictly falling.

    Raises:
        DdpmError: they do not fall, are no finite numbers, or so large or so near
            each other that abar_t does not fall.
    """
    values = numbers("log signal-to-noise ratios", values)
    check(values.ndim == 1 and values.size > 0, "log signal-to-noise ratios must be a vector [T]")
    check(bool(np.isfinite(values).all()), "log signal-to-noise ratios must all be finite numbers")
    rising = np.flatnonzero(np.diff(values) >= 0)
    if rising.size:
        t = int(rising[0])
        raise DdpmError(
            f"log signal-to-noise ratios must fall from step to step, and from t = {t} to {t + 1} "
            f"they go from {values[t]:g} to {values[t + 1]:g}; sort them, or drop equal ones"
        )
    log_abar = -np.logaddexp(0.0, -values)
    check(
        bool(np.exp(log_abar[0]) < 1),
        f"a log signal-to-noise ratio of {values[0]:g} means abar = 1, an image without any noise; "
        "begin below 36",
    )
    betas = -np.expm1(np.diff(log_abar, prepend=0.0))
    try:
        return NoiseSchedule(betas)
    except DdpmError as error:
        raise DdpmError(
            "two of these log signal-to-noise ratios are so near each other, or so high, that abar "
            "is the same; move them apart, or lower them"
        ) from error


def tables(values: LogSnr) -> dict[str, LogSnr]:
    """Every constant of `NoiseSchedule` by its name, as a differentiable function of lambda.

    Args:
        values: [T], float64, falling.
    """
    log_abar, log_rest = logsigmoid(values), logsigmoid(-values)
    one = torch.ones_like(values[:1])
    abar, rest = log_abar.exp(), log_rest.exp()
    abar_prev, rest_prev = torch.cat([one, abar[:-1]]), torch.cat([0 * one, rest[:-1]])
    log_alphas = log_abar - torch.cat([0 * one, log_abar[:-1]])
    alphas, betas = log_alphas.exp(), -torch.expm1(log_alphas)
    variance = betas * rest_prev / rest  # Eq. 7, beta~_t
    replacement = variance[1:2] if len(values) > 1 else betas
    return {
        "betas": betas,
        "alphas": alphas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": abar_prev,
        "sqrt_alphas_cumprod": (0.5 * log_abar).exp(),
        "sqrt_one_minus_alphas_cumprod": (0.5 * log_rest).exp(),
        "log_one_minus_alphas_cumprod": log_rest,
        "sqrt_recip_alphas_cumprod": (-0.5 * log_abar).exp(),
        "sqrt_recipm1_alphas_cumprod": (-0.5 * values).exp(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.cat([replacement, variance[1:]]).log(),
        "posterior_mean_coef1": betas * abar_prev.sqrt() / rest,  # Eq. 7
        "posterior_mean_coef2": rest_prev * (0.5 * log_alphas).exp() / rest,  # Eq. 7
        "fixed_large_variance": torch.cat([replacement, betas[1:]]),
    }


def without_schedule(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network alone, by name, without those of a learned schedule."""
    return {name: value for name, value in weights.items() if not name.startswith(f"{PART}.")}


class LearnedLogSnr(nn.Module):
    """The parameters of a learned schedule.

    Args:
        start: what it begins with.
        free_ends: whether lambda_0 and lambda_{T-1} are learned, too.

    Raises:
        DdpmError: a schedule of one step, which has nothing between its ends.
    """

    def __init__(self, start: NoiseSchedule, free_ends: bool = True) -> None:
        super().__init__()
        values = log_snr(start)
        check(len(values) > 1, "a learned schedule needs at least 2 steps (diffusion.timesteps)")
        falls = -np.diff(values)
        shares = falls / falls.sum()
        # What `forward` adds as a floor is taken away here.
        shares = np.maximum(shares - FLOOR / len(shares), 1e-9)
        self.shares = nn.Parameter(torch.tensor(np.log(shares * len(shares)), dtype=torch.float32))
        self.first = nn.Parameter(torch.tensor(values[0] / SPAN).float(), free_ends)
        self.log_gap = nn.Parameter(torch.tensor(np.log(falls.sum())).float(), free_ends)

    def forward(self) -> LogSnr:
        """lambda_t, float64, strictly falling."""
        shares = softmax(self.shares.double(), dim=0)
        shares = (1 - FLOOR) * shares + FLOOR / len(shares)
        fallen = torch.cat([torch.zeros_like(shares[:1]), shares.cumsum(0)])
        return SPAN * self.first.double() - self.log_gap.double().exp() * fallen

    def schedule(self) -> NoiseSchedule:
        """As it stands, by value."""
        return schedule_from_log_snr(self().detach().cpu().numpy())


@dataclass(frozen=True, eq=False)
class LearnedDiffusion(GaussianDiffusion):
    """The same maths, with constants whose gradients reach the parameters of the schedule.

    Args:
        differentiable: see `tables`; of the values that `schedule` has.
    """

    differentiable: dict[str, Tensor] = field(default_factory=dict)

    def coefficient(self, name: str, t: Int[Tensor, " b"], like: Tensor) -> Tensor:
        """See `ForwardProcess.coefficient`."""
        values = self.differentiable[name][t].to(like.dtype)
        return values.reshape(-1, *[1] * (like.ndim - 1))


def learned_diffusion(schedule: LearnedLogSnr, like: GaussianDiffusion) -> LearnedDiffusion:
    """The diffusion of the schedule as it stands, for one backward pass.

    Args:
        schedule: whose parameters get gradients.
        like: the other settings.
    """
    values = schedule()
    fixed = schedule_from_log_snr(values.detach().cpu().numpy())
    kinds = like.prediction_type, like.variance_type, like.clip_sample
    return LearnedDiffusion(fixed, *kinds, differentiable=tables(values))
