"""Training: presets, the loop, averaged weights and what is written while it runs."""

from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import PRESETS, get_preset

__all__ = ["PRESETS", "TrainingResult", "get_preset", "train"]
