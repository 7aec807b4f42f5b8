"""Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel 2020).

    import ddpm
    model = ddpm.load("runs/digits")
    images = model.sample(64, seed=0)

The parts, from the ground up: `NoiseSchedule`, `GaussianDiffusion`, `UNet`, `training_loss`,
`ddpm.sampling`, `ddpm.data`, `ddpm.training`.
"""

from ddpm.config import Config
from ddpm.diffusion import GaussianDiffusion
from ddpm.errors import DdpmError
from ddpm.losses import training_loss
from ddpm.model import Ddpm, load
from ddpm.schedule import NoiseSchedule, make_schedule, schedule_from_betas
from ddpm.unet import UNet

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Ddpm",
    "DdpmError",
    "GaussianDiffusion",
    "NoiseSchedule",
    "UNet",
    "__version__",
    "load",
    "make_schedule",
    "schedule_from_betas",
    "training_loss",
]
