"""How a model is trained: Algorithm 1 and everything around it. The defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddpm.config.ranges import at_least
from ddpm.diffusion.losses import LossType
from ddpm.errors import check, one_of
from ddpm.runtime.device import Precision

LABEL_DROPOUT = 0.1  # by default, as Ho & Salimans (2022) recommend


@dataclass(frozen=True)
class TrainingConfig:
    """Algorithm 1 and everything around it."""

    steps: int = 800_000
    """Optimiser steps in all."""
    batch_size: int = 128
    """Images a step, over all processes."""
    accumulate: int = 1
    """Micro-batches that each process cuts its part of a step into, to save memory."""
    activation_checkpointing: bool = False
    """Compute the blocks' activations twice rather than keep them, to save memory."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Adam (the paper); or Muon for the matrices and convolutions inside the network, and Adam for
    the rest, which learns more from as many images."""
    lr: float = 2e-4
    """The learning rate after warm-up."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """What the rate does after warm-up: stay (the paper), or fall to 0 along a half cosine."""
    warmup: int = 5000
    """Steps over which the rate rises linearly."""
    grad_clip: float = 1.0
    """Largest global norm of the gradient."""
    ema_decay: float = 0.9999
    """Decay of the averaged weights that every evaluation uses."""
    label_dropout: float = LABEL_DROPOUT
    """Probability that an image of a conditional model is shown without its class, which teaches
    the null class: bits/dim, compression and guidance use it."""
    loss: LossType = "simple"
    """simple (L_simple), vlb (the bound) or hybrid."""
    time_sampling: Literal["uniform", "bound", "both"] = "uniform"
    """Which t are trained on: all alike (the paper); each as often as the bound weighs its error,
    which turns L_simple into the bound, without the large weights; or half and half."""
    stratified_time: bool = False
    """Spread the t of a batch evenly over their distribution, from one random offset, instead of
    drawing each on its own (the paper): the same loss on average, with less noise."""
    start_from: str | None = None
    """A run, a file or a model of `ddpm models` whose weights to begin with."""
    seed: int = 0
    """Decides the weights at the start, the order of the data and all noise."""
    precision: Precision = "auto"
    """Of the network; the diffusion maths is always float32. auto: the fastest safe one."""
    compile: bool = False
    """Run the network through torch.compile; where that fails, continue without it."""
    save_every: int = 5000
    """Steps between checkpoints; the last two are kept."""
    sample_every: int = 5000
    """Steps between sample grids; 0 draws none."""
    log_every: int = 50
    """Steps between lines in stats.jsonl and TensorBoard."""
    last_stage_steps: int | None = None
    """Steps that the network of compressed files' last stage is trained for when the run is
    complete; by default by the size of the images, and at most twice as many as `steps`. 0 leaves
    it out."""
    max_minutes: float | None = None
    """Stop after this long, saved and ready to resume."""
    wandb_project: str | None = None
    """A Weights & Biases project that gets the curves too; TensorBoard always does."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "log_every"):
            at_least(name, getattr(self, name), 1)
        for name in ("warmup", "sample_every", "seed"):
            at_least(name, getattr(self, name), 0)
        if self.last_stage_steps is not None:
            at_least("last_stage_steps", self.last_stage_steps, 0)
        check(self.lr > 0, f"lr must be positive, got {self.lr:g}")
        check(self.grad_clip > 0, f"grad_clip must be positive, got {self.grad_clip:g}")
        check(0 <= self.ema_decay < 1, f"ema_decay must lie in [0, 1), got {self.ema_decay:g}")
        check(
            0 < self.label_dropout < 1,
            f"label_dropout must lie between 0 and 1, got {self.label_dropout:g}; the null class, "
            "which bits/dim, compression and guidance use, is learned from these images",
        )
        one_of("lr_decay", self.lr_decay, ("constant", "cosine"))
        one_of("loss", self.loss, get_args(LossType))
        one_of("optimizer", self.optimizer, ("adam", "muon"))
        one_of("time_sampling", self.time_sampling, ("uniform", "bound", "both"))
        check(
            self.time_sampling == "uniform" or self.loss == "simple",
            f"time_sampling {self.time_sampling} gives L_simple the weights of the bound; loss "
            f"'{self.loss}' has them already, so use one of the two",
        )
        one_of("precision", self.precision, get_args(Precision))
        check(
            self.max_minutes is None or self.max_minutes > 0,
            f"max_minutes must be positive, got {self.max_minutes}",
        )
