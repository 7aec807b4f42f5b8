"""q(.): the forward process, its marginals and its posterior (Eq. 2-7).

Pure functions of tensors. Images are float in [-1, 1], [b, c, h, w], and so may be anything else of
shape [b, ...], points [b, d] for one; t is a long vector [b].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.errors import check

Images = Float[Tensor, "b *dims"]
Times = Int[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class ForwardProcess:
    """The chain that adds noise, q(x_t | x_{t-1}).

    Args:
        schedule: its variances.
    """

    schedule: NoiseSchedule
    _cache: dict[tuple[str, torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def num_timesteps(self) -> int:
        """T, the number of steps of the chain."""
        return self.schedule.num_timesteps

    def refuse_other_times(self, t: Times) -> None:
        """Where t is at hand: on a GPU, to look at it would be to wait for it.

        Args:
            t: [b], time indices of this chain.

        Raises:
            DdpmError: one of them lies outside of 0..T-1.
        """
        if t.device.type == "cpu" and len(t) > 0:
            low, high = (int(end) for end in t.aminmax())
            check(
                low >= 0 and high < self.num_timesteps,
                f"t must lie in 0..{self.num_timesteps - 1}, where 0 is the first step of "
                f"diffusion, got {low if low < 0 else high}",
            )

    def coefficient(self, name: str, t: Times, like: Tensor) -> Tensor:
        """The schedule's constant `name` at times t, [b, 1, ...], to broadcast against `like`.

        Constants are computed in float64 and cast to the images' type only here.

        Args:
            name: an attribute of `NoiseSchedule`.
            t: [b], time indices of this chain.
            like: images, [b, ...].
        """
        key = (name, t.device, like.dtype)
        if key not in self._cache:
            table = torch.from_numpy(getattr(self.schedule, name).copy())
            self._cache[key] = table.to(dtype=like.dtype).to(device=t.device)
        return self._cache[key][t].reshape(-1, *[1] * (like.ndim - 1))

    def _combine(self, a: str, x: Tensor, b: str, y: Tensor, t: Times) -> Tensor:
        """a_t x + b_t y for two constants of the schedule."""
        return self.coefficient(a, t, x) * x + self.coefficient(b, t, y) * y

    def q_mean_variance(self, x_start: Images, t: Times) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log-variance of q(x_t | x_0) (Eq. 4).

        Args:
            x_start: x_0, [b, ...] in [-1, 1].
            t: [b].

        Returns:
            The mean, [b, ...]; the others, [b, 1, ...], broadcast against it.
        """
        mean = self.coefficient("sqrt_alphas_cumprod", t, x_start) * x_start
        log_variance = self.coefficient("log_one_minus_alphas_cumprod", t, x_start)
        variance = self.coefficient("sqrt_one_minus_alphas_cumprod", t, x_start) ** 2
        return mean, variance, log_variance

    def q_sample(self, x_start: Images, t: Times, noise: Images) -> Images:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Eq. 4).

        Args:
            x_start: x_0, [b, ...] in [-1, 1].
            t: [b].
            noise: eps, standard normal, [b, ...].

        Raises:
            DdpmError: a t is out of range.
        """
        self.refuse_other_times(t)
        return self._combine(
            "sqrt_alphas_cumprod", x_start, "sqrt_one_minus_alphas_cumprod", noise, t
        )

    def q_posterior_mean_variance(
        self, x_start: Images, x_t: Images, t: Times
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and clipped log-variance of q(x_{t-1} | x_t, x_0) (Eq. 6-7).

        The log-variance at t = 0, where the variance is 0, is that of t = 1.

        Args:
            x_start, x_t: x_0 and x_t, [b, ...].
            t: [b].

        Returns:
            The mean, [b, ...]; the others, [b, 1, ...], broadcast against it.
        """
        mean = self._combine("posterior_mean_coef1", x_start, "posterior_mean_coef2", x_t, t)
        variance = self.coefficient("posterior_variance", t, x_t)
        log_variance = self.coefficient("posterior_log_variance_clipped", t, x_t)
        return mean, variance, log_variance

    def xstart_from_epsilon(self, epsilon: Images, x_t: Images, t: Times) -> Images:
        """x^_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t) (Eq. 15), not clipped.

        Args:
            epsilon, x_t: the noise and x_t, [b, ...].
            t: [b].
        """
        return (
            self.coefficient("sqrt_recip_alphas_cumprod", t, x_t) * x_t
            - self.coefficient("sqrt_recipm1_alphas_cumprod", t, x_t) * epsilon
        )

    def epsilon_from_xstart(self, x_start: Images, x_t: Images, t: Times) -> Images:
        """The noise that leads from x_0 to x_t: Eq. 4 solved for eps.

        Args:
            x_start, x_t: x_0 and x_t, [b, ...].
            t: [b].
        """
        scaled = self.coefficient("sqrt_alphas_cumprod", t, x_t) * x_start
        return (x_t - scaled) / self.coefficient("sqrt_one_minus_alphas_cumprod", t, x_t)
