"""One step of Algorithm 1, with warm-up, clipping and averaging."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ddpm.config import TrainingConfig
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.importance import BoundTimes
from ddpm.diffusion.losses import training_loss
from ddpm.errors import check
from ddpm.networks.guidance import with_labels
from ddpm.networks.sharding import averaging, gradients_wait
from ddpm.runtime import parallel
from ddpm.runtime.device import in_precision
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.training.compiling import compiled
from ddpm.training.learned_schedule import bound_loss, schedule_of
from ddpm.training.precision import training_precision
from ddpm.training.state import TrainingState


@runtime_checkable
class Loss(Protocol):
    """What a run minimises: any function of this signature."""

    def __call__(
        self,
        diffusion: GaussianDiffusion,
        denoiser: Denoiser,
        x_start: Tensor,
        t: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """The loss of each image.

        Args:
            diffusion: the whole chain.
            denoiser: the network, in the precision of the run; float32 out. Of a conditional
                model it knows the labels of these images, in this order.
            x_start: images in [-1, 1], [b, c, h, w].
            t: a timestep for each, [b].
            noise: standard normal, [b, c, h, w].

        Returns:
            [b].
        """
        ...


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant or half a cosine."""
    rate = training.lr * min((step + 1) / max(training.warmup, 1), 1.0)
    if training.lr_decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return rate


class TrainingStep:
    """One optimiser step on a uint8 batch, as a function of (state, images, step number).

    Args:
        state: what the step changes.
        loss: what it minimises; `training.loss` by default.
    """

    def __init__(self, state: TrainingState, loss: Loss | None = None) -> None:
        training = state.config.training
        self.state, self.training = state, training
        self.own_loss = loss
        self.diffusion = state.config.diffusion.build()
        self.schedule = schedule_of(state.network)
        check(
            loss is None or self.schedule is None,
            "a learned schedule is trained with the bound, not with a loss of one's own; leave "
            "loss out, or take another diffusion.schedule",
        )
        self.network = averaging(state.network)
        self.forward = compiled(self.network) if training.compile else self.network
        self.precision = state.precision = training_precision(state)
        mine = parallel.local_range(training.batch_size)
        self.rows = slice(mine.start, mine.stop)
        self.flip = Randomness(training.seed, "flip")
        self.time = Randomness(training.seed, "timestep")
        self.bound_times = BoundTimes(
            self.diffusion.schedule,
            state.device,
            is_v=self.diffusion.prediction_type == "v_prediction",
            even=0.5 if training.time_sampling == "both" else 0.0,
        )
        self.noise = Randomness(training.seed, "noise")
        self.label = Randomness(training.seed, "label")

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Take the step; returns the loss without waiting for it.

        Args:
            images: uint8 [b, c, h, w], this process's rows of the batch.
            labels: of a conditional model, the class of each, long, [b].
        """
        state, training = self.state, self.training
        images = images.to(state.device, non_blocking=True)
        state.optimizers.zero_grad()
        total = torch.zeros((), device=state.device)
        parts, first = training.accumulate, self.rows.start
        sizes = [len(part) for part in images.chunk(parts)]
        known = [None] * len(sizes) if labels is None else labels.to(state.device).split(sizes)
        for i, (part, classes) in enumerate(zip(images.split(sizes), known, strict=True), start=1):
            with gradients_wait(self.network, i < parts):
                loss = self.loss(part, first, classes) / parts
                loss.backward()
            total += loss.detach()
            first += len(part)

        torch.nn.utils.clip_grad_norm_(state.network.parameters(), training.grad_clip)
        state.optimizers.step(learning_rate(training, state.step))
        state.ema.update(state.network, state.step)
        state.step += 1
        return total

    def loss(self, images: Tensor, first: int, labels: Tensor | None = None) -> Tensor:
        """The mean loss of some images of the batch, `first` being the row of the first one.

        Noise depends on each image's row in the whole batch, dropout on `first`.
        """
        state, training, image_format = self.state, self.training, self.state.format
        step = state.step
        torch.manual_seed(derive_key(training.seed, "dropout", step, first))
        rows = torch.arange(first, first + len(images), device=state.device)
        x = image_format.to_unit(images)
        if state.config.data.flip:
            mirrored = self.flip.integers(rows, 2, step).bool()
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        noise = self.noise.normal(rows, image_format.shape, step)
        denoiser = self.denoiser(rows, labels)
        if self.schedule is not None:
            how = self.schedule, self.diffusion, denoiser
            return bound_loss(*how, x, self.quantile(rows), noise, image_format.levels).mean()
        t = self.times(rows)
        if self.own_loss is not None:
            losses = self.own_loss(self.diffusion, denoiser, x, t, noise)
        else:
            losses = training_loss(
                self.diffusion, denoiser, x, t, noise, training.loss, image_format.levels
            )
        check(
            losses.shape == t.shape,
            f"a loss must return one number for each of the {len(t)} images, got a tensor of shape "
            f"{tuple(losses.shape)}",
        )
        return losses.mean()

    def denoiser(self, rows: Tensor, labels: Tensor | None) -> Denoiser:
        """The network, called with the labels of its images, of which some are left out.

        Which ones depends on each image's row in the whole batch and on the step.
        """
        classes = self.state.config.classes
        if not classes:
            return in_precision(self.forward, self.precision)
        check(labels is not None, "a step of a conditional model needs the labels of its images")
        left_out = self.label.uniform(rows, self.state.step) <= self.training.label_dropout
        shown = torch.where(left_out, classes, labels)  # type: ignore[arg-type]
        return with_labels(self.forward, shown, self.precision)

    def times(self, rows: Tensor) -> Tensor:
        """The timestep of every image."""
        step, total = self.state.step, self.diffusion.num_timesteps
        if not self.training.stratified_time and self.training.time_sampling == "uniform":
            return self.time.integers(rows, total, step)
        quantile = self.quantile(rows)
        if self.training.time_sampling == "uniform":
            return (quantile * total).ceil().long().clamp(1, total) - 1
        return self.bound_times.at(quantile)

    def quantile(self, rows: Tensor) -> Tensor:
        """A number in (0, 1] for each image, which decides its timestep."""
        if self.training.stratified_time:
            return self.stratified(rows)
        return self.time.uniform(rows, self.state.step)

    def stratified(self, rows: Tensor) -> Tensor:
        """A number in (0, 1] for each image, which are evenly spaced over the whole batch.

        One offset serves all processes, and an order that is new in every step shares them out.
        """
        step, size = self.state.step, self.training.batch_size
        order = self.time.permutation(size, step).to(rows.device)
        offset = self.time.uniform(rows.new_tensor([size]), step)  # of no row
        return (order[rows] + offset.double()) / size


def recompute_activations(network: nn.Module, wanted: bool) -> None:
    """Tell a network whether to keep its activations for the backward pass.

    Raises:
        DdpmError: it has no attribute `activation_checkpointing`.
    """
    if hasattr(network, "activation_checkpointing"):
        setattr(network, "activation_checkpointing", wanted)  # noqa: B010
    else:
        check(
            not wanted,
            f"{type(network).__name__} has no attribute activation_checkpointing; leave out "
            "training.activation_checkpointing",
        )
