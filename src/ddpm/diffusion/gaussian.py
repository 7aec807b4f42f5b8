"""p(.): what a network's output means, and the reverse step that it makes (Eq. 8-12, 15).

Pure functions of tensors. A *denoiser* is any callable (x_t, timesteps) -> model output; nothing
here knows what it is made of. Images are float in [-1, 1], [b, c, h, w], or points, [b, d], with
`clip_sample` off where these leave [-1, 1]; t is a long vector [b].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddpm.diffusion.forward import ForwardProcess, Images, Times
from ddpm.diffusion.rotation import Rotation
from ddpm.errors import DdpmError, check, one_of

PredictionType = Literal["epsilon", "sample", "previous_mean", "v_prediction"]
VarianceType = Literal[
    "fixed_small", "fixed_large", "learned", "learned_range", "analytic", "spectral"
]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, [b, c, h, w]; timesteps of the whole chain, [b]) -> [b, c or 2c, h, w]."""
ErrorCurve = Callable[[NDArray[np.int64]], NDArray[np.float64]]
Correction = Callable[[Tensor, Tensor], Tensor]
"""(predicted x_0, [b, c, h, w]; timesteps of the whole chain, [b]) -> a better one."""


# abar below which sqrt(1 / abar) is no float32 and x_0 cannot be read off the noise in x_t.
NO_SIGNAL = 1e-76


class PMeanVariance(NamedTuple):
    """The reverse step p(x_{t-1} | x_t) = N(mean, diag(variance)), and the x_0 it aims at.

    Where the chain has a rotation U, a step that does not end at the image is
    N(mean, U diag(variance) U^T): see `GaussianDiffusion.rotation`.

    Args:
        mean: [b, ...].
        variance, log_variance: [b, ...], one for each number, or for each coordinate of a rotation.
        pred_xstart: x^_0, [b, ...], clipped to [-1, 1] if the model clips.
    """

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    pred_xstart: Tensor


@dataclass(frozen=True, eq=False)
class GaussianDiffusion(ForwardProcess):
    """A forward process, and how a network's output is read as its reverse.

    Args:
        schedule: the forward process.
        prediction_type: what the network's output means: the noise (epsilon, Eq. 11), x_0
            (sample), the posterior mean mu~ (previous_mean, Eq. 8), or sqrt(abar) eps -
            sqrt(1-abar) x_0 (v_prediction, Salimans & Ho 2022).
        variance_type: the reverse variance: beta~_t (fixed_small), beta_t (fixed_large), a
            log-variance in the second half of the output channels (learned), or an interpolation
            between the two in log space (learned_range, Nichol & Dhariwal 2021, Eq. 15), or the
            optimum for the network's measured errors (analytic, Bao et al. 2022), or that in other
            coordinates than pixels (spectral).
        clip_sample: clip the predicted x_0 to [-1, 1] before the posterior mean is formed.
        xstart_mse: for analytic and spectral only: a function of timesteps of the *whole* chain,
            [k], that gives the mean squared error of the predicted x_0 there, [k] or one for every
            pixel and channel, [k, c, h, w]; as it was measured. It is asked for
            `schedule.timesteps`, so it serves every respaced chain too.
        spectral_mse: for spectral only: the same for every coordinate of the rotation.
        rotation: for spectral only: the coordinates in which the variances of the reverse step are
            those of independent numbers; None for the pixels. The last step, to the image itself
            (t = 0), is in pixels always, since the discrete decoder (Eq. 13) is.
        correct_xstart: what is made of every predicted x_0 before the reverse step is formed; see
            `ddpm.likelihood.calibration`. It is given what the chain would use without it, clipped
            if the model clips, and what it gives back is clipped again.
        whole: of a respaced chain, the one that the network was trained on, if that matters.

    Raises:
        DdpmError: an unknown type, or a combination that has no meaning.
    """

    prediction_type: PredictionType = "epsilon"
    variance_type: VarianceType = "fixed_large"
    clip_sample: bool = True
    xstart_mse: ErrorCurve | None = None
    correct_xstart: Correction | None = None
    whole: GaussianDiffusion | None = None
    spectral_mse: ErrorCurve | None = None
    rotation: Rotation | None = None

    def __post_init__(self) -> None:
        for value, options, what in (
            (self.prediction_type, get_args(PredictionType), "prediction_type"),
            (self.variance_type, get_args(VarianceType), "variance_type"),
        ):
            if value not in options:
                raise DdpmError(f"unknown {what} '{value}'; choose from {', '.join(options)}")
        check(
            self.variance_type != "analytic" or self.xstart_mse is not None,
            "variance_type 'analytic' needs the network's measured denoising error, xstart_mse",
        )
        spectral = self.xstart_mse, self.spectral_mse, self.rotation
        check(
            self.variance_type != "spectral" or None not in spectral,
            "variance_type 'spectral' needs the network's denoising error as it was measured in "
            "pixels and in colour and frequency: xstart_mse, spectral_mse and rotation",
        )
        check(
            self.variance_type == "spectral" or spectral[1:] == (None, None),
            "a rotation and its spectral_mse belong to variance_type 'spectral', not to "
            f"'{self.variance_type}'",
        )
        check(
            bool(self.schedule.alphas_cumprod[-1] > NO_SIGNAL)
            or self.prediction_type in ("sample", "v_prediction"),
            f"this schedule ends in pure noise, from which '{self.prediction_type}' cannot recover "
            "x_0; use prediction_type sample or v_prediction",
        )

    @property
    def learns_variance(self) -> bool:
        """Whether the network's output has twice the image's channels."""
        return self.variance_type in ("learned", "learned_range")

    def respace(self, timesteps: Sequence[int] | NDArray[np.int64]) -> GaussianDiffusion:
        """The same model on the shorter chain through `timesteps` (see `NoiseSchedule.respace`).

        A network that predicts mu~ predicts that of a step of the whole chain: x_0 is found from
        it there, and the mean of the longer step from x_0.

        Raises:
            DdpmError: they do not increase, or are none of this chain's.
        """
        whole = (self.whole or self) if self.prediction_type == "previous_mean" else None
        return replace(self, schedule=self.schedule.respace(timesteps), whole=whole)

    def with_variance(
        self,
        variance_type: VarianceType,
        xstart_mse: ErrorCurve | None = None,
        spectral_mse: ErrorCurve | None = None,
        rotation: Rotation | None = None,
    ) -> GaussianDiffusion:
        """The same model with another reverse variance; no retraining for the fixed ones.

        Args:
            variance_type: which.
            xstart_mse: for analytic and spectral only; see the class.
            spectral_mse, rotation: for spectral only.
        """
        return replace(
            self,
            variance_type=variance_type,
            xstart_mse=xstart_mse,
            spectral_mse=spectral_mse,
            rotation=rotation,
        )

    def with_correction(self, correct_xstart: Correction) -> GaussianDiffusion:
        """The same model with its predicted x_0 corrected; see the class."""
        return replace(self, correct_xstart=correct_xstart)

    # -- what a network's output means -----------------------------------------------------------

    def to_xstart(self, output: Images, x_t: Images, t: Times) -> Images:
        """The x_0 that a network output of this `prediction_type` stands for, not clipped.

        Args:
            output: [b, c, ...], without the channels of a learned variance.
            x_t: [b, c, ...].
            t: [b].

        Raises:
            DdpmError: they do not fit together, or a t is out of range.
        """
        self.refuse_misfits(t, output, x_t)
        if self.prediction_type == "epsilon":
            return self.xstart_from_epsilon(output, x_t, t)
        if self.prediction_type == "sample":
            return output
        if self.prediction_type == "v_prediction":
            return (
                self.coefficient("sqrt_alphas_cumprod", t, x_t) * x_t
                - self.coefficient("sqrt_one_minus_alphas_cumprod", t, x_t) * output
            )
        if self.whole is not None:
            return self.whole.to_xstart(output, x_t, self.timesteps(t))
        rest = output - self.coefficient("posterior_mean_coef2", t, x_t) * x_t
        return rest / self.coefficient("posterior_mean_coef1", t, x_t)

    def from_xstart(
        self, x_start: Images, x_t: Images, t: Times, to: PredictionType | None = None
    ) -> Images:
        """The inverse of `to_xstart`, and so also the target a network is trained on.

        Args:
            x_start, x_t: [b, ...], x_0 and the x_t that belongs to it.
            t: [b].
            to: the prediction type; this model's by default.

        Raises:
            DdpmError: they do not fit together, a t is out of range, or the type is unknown.
        """
        self.refuse_misfits(t, x_start, x_t)
        to = to or self.prediction_type
        one_of("the prediction type", to, get_args(PredictionType))
        if to == "epsilon":
            return self.epsilon_from_xstart(x_start, x_t, t)
        if to == "sample":
            return x_start
        if to == "v_prediction":
            noise = self.epsilon_from_xstart(x_start, x_t, t)
            return (
                self.coefficient("sqrt_alphas_cumprod", t, x_t) * noise
                - self.coefficient("sqrt_one_minus_alphas_cumprod", t, x_t) * x_start
            )
        if self.whole is not None:
            return self.whole.from_xstart(x_start, x_t, self.timesteps(t), to)
        return self.q_posterior_mean_variance(x_start, x_t, t)[0]

    def convert(self, output: Images, x_t: Images, t: Times, to: PredictionType) -> Images:
        """A network output of this `prediction_type`, expressed as another; see `to_xstart`."""
        return self.from_xstart(self.to_xstart(output, x_t, t), x_t, t, to)

    # -- the reverse process ---------------------------------------------------------------------

    def timesteps(self, t: Times) -> Times:
        """The timesteps of the whole chain, [b], at time indices of this one."""
        table = self._cache.setdefault(
            ("timesteps", t.device, torch.long),
            torch.from_numpy(self.schedule.timesteps.copy()).to(t.device),
        )
        return table[t]

    def model_output(self, denoiser: Denoiser, x_t: Images, t: Times) -> Tensor:
        """Call the network at the times it was trained on and check the shape of its answer.

        Args:
            denoiser: the network.
            x_t: [b, c, ...].
            t: [b], time indices of this chain.

        Raises:
            DdpmError: the answer has another shape than [b, c or 2c, ...], t does not fit the
                images, or is out of range.
        """
        self.refuse_misfits(t, x_t)
        output = denoiser(x_t, self.timesteps(t))
        channels = x_t.shape[1] * (2 if self.learns_variance else 1)
        expected = (x_t.shape[0], channels, *x_t.shape[2:])
        check(
            tuple(output.shape) == expected,
            f"the network returned {tuple(output.shape)} where variance_type "
            f"'{self.variance_type}' needs {expected}",
        )
        return output.to(x_t.dtype)

    def log_variance(self, variance_output: Tensor | None, x_t: Tensor, t: Times) -> Tensor:
        """log of the reverse variance, shaped like x_t; in the coordinates of `rotation`.

        Args:
            variance_output: second half of the output channels, None for the fixed variances.
            x_t: [b, c, ...].
            t: [b].

        Raises:
            DdpmError: a learned variance without its output.
        """
        if self.variance_type == "fixed_small":
            value = self.coefficient("posterior_log_variance_clipped", t, x_t)
        elif self.variance_type == "fixed_large":
            value = self.coefficient("fixed_large_variance", t, x_t).log()
        elif self.variance_type in ("analytic", "spectral"):
            value = self.analytic_variance(t, x_t).log()
        elif variance_output is None:
            raise DdpmError("a learned variance needs the second half of the network's output")
        elif self.variance_type == "learned":
            value = variance_output
        else:  # Nichol & Dhariwal 2021, Eq. 15; the output spans [-1, 1]
            low = self.coefficient("posterior_log_variance_clipped", t, x_t)
            high = self.coefficient("betas", t, x_t).log()
            value = low + (variance_output + 1) / 2 * (high - low)
        return value.expand(x_t.shape)

    def analytic_variance(self, t: Times, x_t: Tensor) -> Tensor:
        """sigma^2 = beta~ + coef1^2 E|x_0 - x^_0|^2, the best there is (Bao et al. 2022, Thm. 1).

        At the last step, where beta~ is 0 and coef1 is 1, this is the error itself. With a
        rotation it is that in each of its coordinates, but for the last step, which is in pixels.
        """
        key = ("xstart_mse", t.device, x_t.dtype)
        if key not in self._cache:
            rows = (torch.as_tensor(self._mse(i)) for i in range(self.num_timesteps))
            self._cache[key] = torch.stack([row.to(x_t.dtype) for row in rows]).to(t.device)
        if self.rotation is not None:
            self.rotation.check(x_t)
        mse = self._cache[key][t]
        mse = mse.reshape(*mse.shape, *[1] * (x_t.ndim - mse.ndim))
        coef1 = self.coefficient("posterior_mean_coef1", t, x_t)
        return self.coefficient("posterior_variance", t, x_t) + coef1**2 * mse

    def _mse(self, index: int) -> NDArray[np.float64]:
        """The error of the predicted x_0 at a time index, in the coordinates of its step.

        One timestep at a time: a float64 table of a large image would take gigabytes.
        """
        step = self.schedule.timesteps[[index]]
        assert self.xstart_mse is not None
        if self.rotation is None:
            return np.asarray(self.xstart_mse(step)[0])
        assert self.spectral_mse is not None
        found = (self.spectral_mse if index else self.xstart_mse)(step)[0]
        return np.array(np.broadcast_to(found, self.rotation.shape))

    def rotate(self, x: Images) -> Images:
        """Images in the coordinates of `rotation`, where the reverse step is of independent
        numbers: U^T x; the images themselves without one."""
        return x if self.rotation is None else self.rotation.rotate(x)

    def unrotate(self, y: Images) -> Images:
        """The images of such coordinates: U y."""
        return y if self.rotation is None else self.rotation.unrotate(y)

    def p_sample(self, p: PMeanVariance, noise: Images) -> Images:
        """A draw of x_{t-1} from a reverse step that does not end at the image, t > 0.

        Args:
            p: the step.
            noise: z, standard normal, [b, ...].

        Returns:
            mean + U sqrt(variance) U^T z, [b, ...]; with U = I without a rotation.
        """
        return p.mean + self.unrotate((0.5 * p.log_variance).exp() * self.rotate(noise))

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output as (prediction, variance output or None)."""
        if not self.learns_variance:
            return output, None
        prediction, variance_output = output.chunk(2, dim=1)
        return prediction, variance_output

    def p_mean_variance_from_output(
        self, output: Tensor, x_t: Images, t: Times, clip_sample: bool | None = None
    ) -> PMeanVariance:
        """The reverse step that a network's output stands for (Eq. 11 by way of Eq. 15).

        Args:
            output: [b, c or 2c, ...].
            x_t: [b, c, ...].
            t: [b].
            clip_sample: overrides the model's own setting; training on the bound turns it off.
        """
        prediction, variance_output = self.split(output)
        log_variance = self.log_variance(variance_output, x_t, t)
        pred_xstart = self.to_xstart(prediction, x_t, t)
        clip = self.clip_sample if clip_sample is None else clip_sample
        if clip:  # before the mean is formed, never after
            pred_xstart = pred_xstart.clamp(-1, 1)
        as_predicted = self.correct_xstart is None
        if self.correct_xstart is not None:
            pred_xstart = self.correct_xstart(pred_xstart, self.timesteps(t))
            pred_xstart = pred_xstart.clamp(-1, 1) if clip else pred_xstart
        if self.prediction_type == "previous_mean" and self.whole is None and as_predicted:
            mean = prediction
        else:
            mean = self.q_posterior_mean_variance(pred_xstart, x_t, t)[0]
        return PMeanVariance(mean, log_variance.exp(), log_variance, pred_xstart)

    def p_mean_variance(self, denoiser: Denoiser, x_t: Images, t: Times) -> PMeanVariance:
        """The reverse step p(x_{t-1} | x_t) under `denoiser` (Eq. 11).

        Args:
            denoiser: the network, or any function like it.
            x_t: [b, ...].
            t: [b], time indices of this chain.
        """
        return self.p_mean_variance_from_output(self.model_output(denoiser, x_t, t), x_t, t)
