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
from ddpm.errors import DdpmError

Images = Float[Tensor, "b *dims"]
Times = Int[Tensor, " b"]
WHOLE = (torch.int32, torch.int64)  # others are no indices, or masks


def kind(value: object) -> str:
    """What a wrong argument is, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__} {value!r:.40}"


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

    def refuse_misfits(self, t: Times, *images: Images) -> None:
        """Images and time indices that this chain cannot take.

        Args:
            t: [b], time indices of this chain; whether they lie in it is seen on a CPU only,
                because on a GPU to look at them would be to wait for them.
            images: [b, ...] each, of one shape.

        Raises:
            DdpmError: images are no floats or differ in shape or device, or t is no vector of b
                indices from 0..T-1.
        """
        first = images[0]
        for x in images:
            if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0:
                raise DdpmError(
                    f"images and noise must be floating-point tensors [b, ...], got {kind(x)}; "
                    "grey levels become images in [-1, 1] by `to_unit` of their format"
                )
            if x.shape != first.shape or x.device != first.device:
                raise DdpmError(
                    "images and noise of one call must have one shape and device, got "
                    f"{kind(first)} on {first.device} and {kind(x)} on {x.device}"
                )
        if not isinstance(t, Tensor) or t.dtype not in WHOLE or t.shape != first.shape[:1]:
            raise DdpmError(
                "t must be a tensor of whole numbers, one for each image, such as "
                f"torch.full(({len(first)},), 5), got {kind(t)}"
            )
        if t.device != first.device:
            raise DdpmError(f"t is on {t.device} and the images are on {first.device}")
        if t.device.type == "cpu" and len(t) > 0:
            low, high = (int(end) for end in t.aminmax())
            if low < 0 or high >= self.num_timesteps:
                raise DdpmError(
                    f"t must lie in 0..{self.num_timesteps - 1}, where 0 is the first step of "
                    f"diffusion, got {low if low < 0 else high}"
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
        self.refuse_misfits(t, x_start)
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
            DdpmError: they do not fit together, or a t is out of range.
        """
        self.refuse_misfits(t, x_start, noise)
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
        self.refuse_misfits(t, x_start, x_t)
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
        self.refuse_misfits(t, epsilon, x_t)
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
        self.refuse_misfits(t, x_start, x_t)
        scaled = self.coefficient("sqrt_alphas_cumprod", t, x_t) * x_start
        return (x_t - scaled) / self.coefficient("sqrt_one_minus_alphas_cumprod", t, x_t)
