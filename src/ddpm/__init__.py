"""Denoising Diffusion Probabilistic Models (Ho, Jain & Abbeel 2020).

    import ddpm
    model = ddpm.load("runs/digits")
    images = model.sample(64, seed=0)

The parts, from the ground up: `NoiseSchedule`, `GaussianDiffusion`, `UNet`, `training_loss`,
`ddpm.sampling`, `ddpm.data`, `ddpm.training`.
"""

from ddpm.config import Config
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses import training_loss
from ddpm.diffusion.schedule import NoiseSchedule, make_schedule, schedule_from_betas
from ddpm.errors import DdpmError
from ddpm.model import Ddpm, load
from ddpm.networks.unet import UNet

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
