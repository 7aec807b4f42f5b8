"""Training: presets, the loop, averaged weights and when to stop."""

from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import get_preset
from ddpm.training.step import Loss

__all__ = ["Loss", "TrainingResult", "get_preset", "train"]
