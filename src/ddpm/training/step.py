"""One step of Algorithm 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm.config import TrainingConfig
from ddpm.data import to_unit_range
from ddpm.diffusion.importance import BoundTimes
from ddpm.diffusion.losses import training_loss
from ddpm.networks.sharding import averaging, gradients_wait
from ddpm.runtime import parallel
from ddpm.runtime.device import resolve_precision
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.training.compiling import compiled
from ddpm.training.state import TrainingState


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant or half a cosine."""
    rate = training.lr * min((step + 1) / max(training.warmup, 1), 1.0)
    if training.lr_decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return rate


class TrainingStep:
    """One optimiser step on a uint8 batch, as a function of (state, images, step number)."""

    def __init__(self, state: TrainingState) -> None:
        training = state.config.training
        self.state, self.training = state, training
        self.diffusion = state.config.diffusion.build()
        state.network.activation_checkpointing = training.activation_checkpointing
        self.network = averaging(state.network)
        self.forward = compiled(self.network) if training.compile else self.network
        self.bf16 = resolve_precision(training.precision, state.device) == "bf16"
        mine = parallel.share(training.batch_size)
        self.share = slice(mine.start, mine.stop)
        self.flip = Randomness(training.seed, "flip")
        self.time = Randomness(training.seed, "timestep")
        self.bound_times = BoundTimes(self.diffusion.schedule, state.device)
        self.noise = Randomness(training.seed, "noise")

    def times(self, slots: Tensor) -> Tensor:
        """The timestep of every image."""
        step, total = self.state.step, self.diffusion.num_timesteps
        if self.training.time_sampling == "uniform":
            return self.time.integers(slots, total, step)
        return self.bound_times.at(self.time.uniform(slots, step))

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The network in the chosen precision; float32 out."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.forward(x, t)
        return output.float()

    def loss(self, images: Tensor, first: int) -> Tensor:
        """The mean loss of some images of the batch, `first` being the place of the first one.

        Noise depends on each image's place in the whole batch, dropout on `first`.
        """
        state, training, facts = self.state, self.training, self.state.facts
        step = state.step
        if state.config.network.dropout > 0:
            torch.manual_seed(derive_key(training.seed, "dropout", step, first))
        slots = torch.arange(first, first + len(images), device=state.device)
        x = to_unit_range(images, facts.grey_levels)
        if state.config.data.flip:
            mirrored = self.flip.integers(slots, 2, step).bool()
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        t = self.times(slots)
        noise = self.noise.normal(slots, facts.shape, step)
        return training_loss(
            self.diffusion, self.denoise, x, t, noise, training.loss, facts.grey_levels
        ).mean()

    def __call__(self, images: Tensor) -> Tensor:
        """Take the step; returns the loss without waiting for it."""
        state, training = self.state, self.training
        images = images.to(state.device, non_blocking=True)
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=state.device)
        parts = training.accumulate
        first = self.share.start
        for i, part in enumerate(images.chunk(parts), start=1):
            with gradients_wait(self.network, i < parts):
                loss = self.loss(part, first) / parts
                loss.backward()
            total += loss.detach()
            first += len(part)

        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, state.step)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), training.grad_clip)
        state.optimizer.step()
        state.ema.update(state.network)
        state.step += 1
        return total
