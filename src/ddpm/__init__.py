"""Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel 2020).

    import ddpm
    model = ddpm.load("runs/digits")
    images = model.sample(64, seed=0)

The parts, from the ground up: `NoiseSchedule` and `GaussianDiffusion` (what is true on paper), a
network such as `UNet`, `training_loss` and `train`, the samplers (`Ancestral`, `Ddim`, ...), and
`Ddpm`, a trained model with everything it can do. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm.codec import Decompressed
    from ddpm.config import (
        Config,
        DataConfig,
        DiffusionConfig,
        NetworkConfig,
        TrainingConfig,
        UNetConfig,
    )
    from ddpm.data import (
        EncodedImages,
        ImageFormat,
        ImageSource,
        MemoryImages,
        open_data,
        open_encoded,
    )
    from ddpm.diffusion.bound_terms import prior_bpd
    from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, PMeanVariance
    from ddpm.diffusion.learned import schedule_from_log_snr
    from ddpm.diffusion.losses import training_loss
    from ddpm.diffusion.schedule import NoiseSchedule, make_schedule, schedule_from_betas
    from ddpm.errors import DdpmError
    from ddpm.likelihood.bound import Bound
    from ddpm.likelihood.denoising_error import DenoisingError
    from ddpm.likelihood.plan import Plan
    from ddpm.loading import load
    from ddpm.model import Ddpm
    from ddpm.networks.unet import UNet
    from ddpm.pretrained import pretrained
    from ddpm.registry import register
    from ddpm.runs.history import History
    from ddpm.runtime.progress import Progress
    from ddpm.sampling import (
        Ancestral,
        Ddim,
        DpmSolver,
        Heun,
        Langevin,
        Sampler,
        SampleState,
        UniPc,
    )
    from ddpm.training.ema import Ema
    from ddpm.training.loop import TrainingResult, train
    from ddpm.training.presets import get_preset
    from ddpm.training.step import Loss

__version__ = "0.2.0"

_HOMES = {
    "ddpm.codec": ("Decompressed",),
    "ddpm.config": (
        "Config",
        "DataConfig",
        "DiffusionConfig",
        "NetworkConfig",
        "TrainingConfig",
        "UNetConfig",
    ),
    "ddpm.data": (
        "EncodedImages",
        "ImageFormat",
        "ImageSource",
        "MemoryImages",
        "open_data",
        "open_encoded",
    ),
    "ddpm.diffusion.bound_terms": ("prior_bpd",),
    "ddpm.diffusion.gaussian": ("Denoiser", "GaussianDiffusion", "PMeanVariance"),
    "ddpm.diffusion.learned": ("schedule_from_log_snr",),
    "ddpm.diffusion.losses": ("training_loss",),
    "ddpm.diffusion.schedule": ("NoiseSchedule", "make_schedule", "schedule_from_betas"),
    "ddpm.errors": ("DdpmError",),
    "ddpm.likelihood.bound": ("Bound",),
    "ddpm.likelihood.denoising_error": ("DenoisingError",),
    "ddpm.likelihood.plan": ("Plan",),
    "ddpm.loading": ("load",),
    "ddpm.model": ("Ddpm",),
    "ddpm.networks.unet": ("UNet",),
    "ddpm.pretrained": ("pretrained",),
    "ddpm.registry": ("register",),
    "ddpm.runs.history": ("History",),
    "ddpm.runtime.progress": ("Progress",),
    "ddpm.sampling": (
        "Ancestral",
        "Ddim",
        "DpmSolver",
        "Heun",
        "Langevin",
        "SampleState",
        "Sampler",
        "UniPc",
    ),
    "ddpm.training.ema": ("Ema",),
    "ddpm.training.loop": ("TrainingResult", "train"),
    "ddpm.training.presets": ("get_preset",),
    "ddpm.training.step": ("Loss",),
}
_PARTS = (
    "cli",
    "codec",
    "compression",
    "config",
    "data",
    "diffusion",
    "errors",
    "evaluation",
    "figures",
    "interop",
    "latents",
    "likelihood",
    "loading",
    "model",
    "networks",
    "pretrained",
    "provenance",
    "registry",
    "runs",
    "runtime",
    "sampling",
    "training",
    "ui",
)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name or a part of the package, loaded when it is first asked for."""
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    if name in _PARTS:
        return importlib.import_module(f"ddpm.{name}")
    raise AttributeError(f"module 'ddpm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS})


__all__ = [
    "Ancestral",
    "Bound",
    "Config",
    "DataConfig",
    "Ddim",
    "Ddpm",
    "DdpmError",
    "Decompressed",
    "Denoiser",
    "DenoisingError",
    "DiffusionConfig",
    "DpmSolver",
    "Ema",
    "EncodedImages",
    "GaussianDiffusion",
    "Heun",
    "History",
    "ImageFormat",
    "ImageSource",
    "Langevin",
    "Loss",
    "MemoryImages",
    "NetworkConfig",
    "NoiseSchedule",
    "PMeanVariance",
    "Plan",
    "Progress",
    "SampleState",
    "Sampler",
    "TrainingConfig",
    "TrainingResult",
    "UNet",
    "UNetConfig",
    "UniPc",
    "__version__",
    "get_preset",
    "load",
    "make_schedule",
    "open_data",
    "open_encoded",
    "pretrained",
    "prior_bpd",
    "register",
    "schedule_from_betas",
    "schedule_from_log_snr",
    "train",
    "training_loss",
]
