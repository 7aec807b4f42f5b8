"""diffusers' schedulers: the betas and what the network's output means.

`DDPMScheduler` and `DDIMScheduler` are of our diffusion. The second says no reverse variance; with
eta = 1 it is beta~, so that is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpm.config import DiffusionConfig
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.errors import DdpmError, check
from ddpm.interop.diffusers_unet import VERSION
from ddpm.interop.settings import Settings, shown

SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "quad",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",  # the same number, computed by way of its logarithm
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
BETAS = (  # what says the betas, and the last two what is read with them
    *("trained_betas", "beta_schedule", "beta_start", "beta_end", "num_train_timesteps"),
    *("rescale_betas_zero_snr", "prediction_type"),
)
# How diffusers samples, not what the model is; the values that our sampling has.
SAMPLING: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "clip_sample_range": (1.0,),
    "timestep_spacing": ("leading",),
    "steps_offset": (0,),
    "set_alpha_to_one": (True,),
    "timestep_values": (None,),
}
INERT = ("tensor_format", "dynamic_thresholding_ratio", "sample_max_value")  # without thresholding


def read_scheduler(settings: Settings, ignored: tuple[str, ...] = ()) -> DiffusionConfig:
    """The diffusion of a scheduler's configuration.

    Args:
        settings: of the file scheduler_config.json.
        ignored: settings of sampling that are left out though we have no counterpart.

    Raises:
        DdpmError: it is of another kind, or a setting, by name, has no counterpart.
    """
    kind = settings.values.get("_class_name")
    check(
        kind in SCHEDULERS,
        f"{settings.where} is of {shown(kind)}, and ddpm reads {' and '.join(SCHEDULERS)}; if "
        "the model was trained with one of these, put its scheduler_config.json there",
    )
    check_sampling(settings, ignored)
    prediction = settings.get("prediction_type", "epsilon")
    check(
        prediction in ("epsilon", "sample", "v_prediction"),
        f"'prediction_type' in {settings.where} is {shown(prediction)}, which ddpm does not know",
    )
    variance = "fixed_small"  # diffusers' default, and what DDIM has with eta = 1
    if kind == "DDPMScheduler":
        given = settings.get("variance_type", variance)
        check(
            given in VARIANCES,
            f"'variance_type' in {settings.where} is {shown(given)}, and ddpm has a counterpart "
            f"only for {', '.join(VARIANCES)}",
        )
        variance = VARIANCES[given]
    else:
        settings.notes.append(
            f"{settings.where} is of DDIM, which has no reverse variance; fixed_small is taken, "
            "which DDIM has with eta 1"
        )
    diffusion = built(
        settings,
        **read_betas(settings),
        prediction_type=prediction,
        variance_type=variance,
        clip_sample=settings.get("clip_sample", True),
    )
    settings.finish()
    return diffusion


def check_sampling(settings: Settings, ignored: tuple[str, ...]) -> None:
    """Refuse how diffusers samples where we sample otherwise, but for what a user leaves out.

    Raises:
        DdpmError: a setting, by name; or one is to be left out that cannot be.
    """
    for key in ignored:
        check(
            key in SAMPLING,
            f"--ignore leaves out settings of sampling, and '{key}' is none; choose from "
            f"{', '.join(SAMPLING)}",
        )
    settings.pass_over(INERT)
    clips = settings.values.get("clip_sample", True)
    for key, values in SAMPLING.items():
        value = settings.values.get(key, values[0])
        check(
            key not in ignored or value != values[0],
            f"--ignore {key} has no effect on {settings.where}, which samples as ddpm does there",
        )
        if key in ignored:
            settings.pass_over([key])
            settings.notes.append(f"'{key}' in {settings.where} ({shown(value)}) is left out")
        elif key == "clip_sample_range" and clips is False:
            settings.pass_over([key])  # it is a range of clipping
        else:
            settings.must_be(key, *values, reason=f"--ignore {key} leaves it out")


def read_betas(settings: Settings) -> dict[str, Any]:
    """The settings of `DiffusionConfig` that say the betas.

    Raises:
        DdpmError: another number of betas than timesteps, or a schedule that we do not have.
    """
    total = settings.get("num_train_timesteps", 1000, low=1)
    start = float(settings.get("beta_start", 1e-4, float))
    end = float(settings.get("beta_end", 0.02, float))
    name = settings.get("beta_schedule", "linear")
    betas = settings.get("trained_betas", None, (list, type(None)))
    if betas is None:
        check(
            name in SCHEDULES,
            f"'beta_schedule' in {settings.where} is {shown(name)}, and ddpm knows "
            f"{', '.join(SCHEDULES)}; its betas can be given as 'trained_betas'",
        )
        found: dict[str, Any] = {
            "schedule": SCHEDULES[name],
            "timesteps": total,
            "beta_start": start,
            "beta_end": end,
        }
    else:
        check(
            len(betas) == total,
            f"'trained_betas' in {settings.where} has {len(betas)} entries, and "
            f"'num_train_timesteps' is {total}",
        )
        numbers = all(isinstance(b, int | float) and not isinstance(b, bool) for b in betas)
        check(numbers, f"'trained_betas' in {settings.where} holds something else than numbers")
        found = {"betas": tuple(map(float, betas)), "timesteps": total}
    if settings.get("rescale_betas_zero_snr", False):
        found = {"betas": without_signal(built(settings, **found)), "timesteps": total}
    return found


def built(settings: Settings, **found: Any) -> DiffusionConfig:
    """The diffusion of settings.

    Raises:
        DdpmError: its betas are out of range or do not fit; the settings that say them, by name.
    """
    try:
        return DiffusionConfig(**{"prediction_type": "sample", **found})
    except DdpmError as error:
        values = {key: settings.values.get(key) for key in BETAS}
        said = [f"'{key}'" for key, v in values.items() if v is not None and v is not False]
        raise DdpmError(
            f"{settings.where} has betas ({', '.join(said)}) that cannot be used: {error}"
        ) from error


def without_signal(diffusion: DiffusionConfig) -> tuple[float, ...]:
    """The betas once sqrt(abar) is shifted and scaled to end at 0 (Lin et al. 2023, Alg. 1)."""
    root = diffusion.build().schedule.sqrt_alphas_cumprod
    check(
        len(root) > 1,
        "a schedule of one step cannot be rescaled to end without signal (rescale_betas_zero_snr)",
    )
    abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return tuple((1.0 - abar / np.append(1.0, abar[:-1])).tolist())


def write_scheduler(diffusion: GaussianDiffusion, config: DiffusionConfig) -> dict[str, Any]:
    """The configuration of a `DDPMScheduler`; the inverse of `read_scheduler`.

    Args:
        diffusion: of the model; its betas count.
        config: that it was made of, which may know their formula.

    Raises:
        DdpmError: the diffusion is one that diffusers has no counterpart for.
    """
    prediction, variance = diffusion.prediction_type, diffusion.variance_type
    odd = {
        "prediction_type": prediction == "previous_mean" and prediction,
        "variance_type": variance not in VARIANCES.values() and variance,
    }
    for name, value in odd.items():
        check(
            not value,
            f"diffusers has no counterpart of diffusion.{name} {value}; export the weights alone "
            "with --format safetensors",
        )
    betas = diffusion.schedule.betas
    formula = {ours: theirs for theirs, ours in SCHEDULES.items()}.get(config.schedule)
    by_value = (
        formula is None
        or config.betas is not None
        or config.timesteps != len(betas)
        or not np.array_equal(config.build().schedule.betas, betas)
    )
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": VERSION,
        "beta_end": config.beta_end,
        "beta_schedule": "linear" if by_value else formula,
        "beta_start": config.beta_start,
        "clip_sample": diffusion.clip_sample,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": len(betas),
        "prediction_type": prediction,
        "rescale_betas_zero_snr": False,
        "sample_max_value": 1.0,
        "steps_offset": 0,
        "thresholding": False,
        "timestep_spacing": "leading",
        "trained_betas": betas.tolist() if by_value else None,
        "variance_type": variance,
    }
