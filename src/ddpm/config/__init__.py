"""What a model and a training run are made of: typed, checked when built, stored as JSON."""

from ddpm.config.model import DataConfig, DiffusionConfig, NetworkConfig, UNetConfig
from ddpm.config.training import TrainingConfig
from ddpm.config.whole import Config

__all__ = [
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "NetworkConfig",
    "TrainingConfig",
    "UNetConfig",
]
