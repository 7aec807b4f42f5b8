"""The training loop: the paper's Algorithm 1 with warm-up, clipping and averaging."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from torch import Tensor

from ddpm.checkpoint import atomically, checkpoint_path, checkpoints
from ddpm.config import Config, TrainingConfig
from ddpm.data import DataOrder, ImageSource, MemoryImages, to_unit_range, training_batches
from ddpm.errors import DdpmError, Diverged, check
from ddpm.figures.grid import image_grid, save_png
from ddpm.losses import training_loss
from ddpm.model import DataFacts, resolve_precision
from ddpm.randomness import Randomness, derive_key
from ddpm.training.divergence import LossWatch
from ddpm.training.keeping import prepare_folder, saved_on_errors, set_aside, way_back
from ddpm.training.log import RunLog, progress_bar, read_stats
from ddpm.training.state import TrainingState
from ddpm.training.wandb import open_wandb


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Args:
        run: its folder.
        step: steps taken in all.
        checkpoint: the newest file.
        seconds: of training, over all its sittings.
        stopped: None if it is complete, else why not: SIGINT, SIGTERM or max_minutes.
    """

    run: Path
    step: int
    checkpoint: Path
    seconds: float
    stopped: str | None


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant or half a cosine."""
    rate = training.lr * min((step + 1) / max(training.warmup, 1), 1.0)
    if training.lr_decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return rate


def make_accelerator() -> Accelerator:
    """Devices and processes; precision is ours to choose, so that the maths stays float32."""
    return Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")


@contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM in a list instead of dying; a second one dies as usual."""
    caught: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TrainingStep:
    """One optimiser step on a uint8 batch, as a function of (state, images, step number)."""

    def __init__(self, state: TrainingState) -> None:
        training = state.config.training
        accelerator = make_accelerator()
        self.state, self.training, self.accelerator = state, training, accelerator
        self.diffusion = state.config.diffusion.build()
        self.network = accelerator.prepare_model(state.network)
        self.bf16 = resolve_precision(training.precision, state.device) == "bf16"
        share = training.batch_size // accelerator.num_processes
        first = accelerator.process_index * share
        self.share = slice(first, first + share)
        self.slots = torch.arange(first, first + share, device=state.device)
        self.flip = Randomness(training.seed, "flip")
        self.time = Randomness(training.seed, "timestep")
        self.noise = Randomness(training.seed, "noise")

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """The network in the chosen precision; float32 out."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.network(x, t)
        return output.float()

    def __call__(self, images: Tensor) -> Tensor:
        """Take the step; returns the loss without waiting for it."""
        state, training, facts = self.state, self.training, self.state.facts
        step = state.step
        if state.config.network.dropout > 0:
            process = self.accelerator.process_index
            torch.manual_seed(derive_key(training.seed, "dropout", step, process))
        x = to_unit_range(images.to(state.device, non_blocking=True), facts.grey_levels)
        if state.config.data.flip:
            mirrored = self.flip.integers(self.slots, 2, step).bool()
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        t = self.time.integers(self.slots, self.diffusion.num_timesteps, step)
        noise = self.noise.normal(self.slots, facts.shape, step)
        loss = training_loss(
            self.diffusion, self.denoise, x, t, noise, training.loss, facts.grey_levels
        ).mean()

        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        state.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), training.grad_clip)
        state.optimizer.step()
        state.ema.update(state.network)
        state.step += 1
        return loss.detach()


def prepare_run(config: Config, source: ImageSource, run: Path, resume: bool) -> TrainingState:
    """The state to start from: fresh, or the newest good checkpoint of `run`.

    Raises:
        DdpmError: the run exists and `resume` is off, or the other way round; or they do not fit;
            or there is no room or no right to write in `run`.
    """
    training = config.training
    accelerator = make_accelerator()
    check(
        training.batch_size % accelerator.num_processes == 0,
        f"a batch of {training.batch_size} cannot be shared evenly by "
        f"{accelerator.num_processes} processes; change --training.batch-size",
    )
    state = TrainingState(
        config, DataFacts(source.shape, source.grey_levels, source.name), accelerator.device
    )
    if resume:
        state.restore(run)
    elif checkpoints(run):
        raise DdpmError(
            f"{run} already holds a run; add --resume to go on with it or choose another --out"
        )
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    if accelerator.is_main_process:
        atomically(run / "config.json", lambda partial: partial.write_text(text))
        prepare_folder(run, state.nbytes)
    return state


def train(
    config: Config, source: ImageSource, run: Path, *, resume: bool = False
) -> TrainingResult:
    """Train until `config.training.steps`, a signal or `max_minutes`; always ends saved.

    Args:
        config: what to train; with `resume`, the same as before (steps may grow).
        source: the training images.
        run: folder for checkpoints, curves and sample grids.
        resume: go on from the newest good checkpoint in `run`.

    Raises:
        DdpmError: the run cannot be written or resumed, or an image cannot be read.
        Diverged: its loss is no longer finite, or far above what it was; nothing is saved then.
    """
    state = prepare_run(config, source, run, resume)
    accelerator = make_accelerator()
    training = config.training
    if isinstance(source, MemoryImages):
        source = source.to(state.device)
    step = TrainingStep(state)
    order = DataOrder(len(source), training.batch_size, training.seed)
    batches = training_batches(source, order, state.step, training.steps, step.share)
    main = accelerator.is_main_process
    known = [line for line in read_stats(run) if line["step"] <= state.step]
    watch = LossWatch(training, [line["loss"] for line in known if "loss" in line])
    curves = open_wandb(training.wandb, run, config) if main and training.wandb else None
    log = RunLog(run, state.step, curves) if main else None
    begun, earlier, first = time.monotonic(), state.seconds, state.step
    stopped: str | None = None
    losses: list[Tensor] = []
    saved_at = state.step

    def save() -> None:
        nonlocal saved_at
        if state.step != saved_at and main:
            state.save(run)
        saved_at = state.step

    def report() -> float:
        """Write the mean loss since the last report; refuse to go on if the run diverged."""
        loss = watch.see(accelerator.reduce(torch.stack(losses), "mean").tolist(), state.step)
        losses.clear()
        rate = (state.step - first) * training.batch_size / (time.monotonic() - begun)
        if log is not None:
            lr = learning_rate(training, state.step - 1)
            log.write(state.step, loss=loss, images_per_second=rate, lr=lr)
        bar.update(task, note=f"loss {loss:.4f}")
        return loss

    with catch_signals() as signals, progress_bar("steps") as bar:
        task = bar.add_task("training", total=training.steps, completed=state.step, note="")
        bar.disable = not main
        try:
            for images in saved_on_errors(batches, save):
                losses.append(step(images))
                state.seconds = earlier + time.monotonic() - begun
                bar.update(task, completed=state.step)
                ended = state.step == training.steps
                due = state.step % training.save_every == 0
                if training.max_minutes and state.seconds - earlier > 60 * training.max_minutes:
                    stopped = "max_minutes"
                if signals:
                    stopped = signals[0]
                if state.step % training.log_every == 0 or due or ended or stopped:
                    report()
                if due or ended or stopped:
                    save()
                if training.sample_every and state.step % training.sample_every == 0 and main:
                    draw_samples(state, run)
                if stopped:
                    break
        except Diverged as error:
            if main:
                set_aside(run, max(error.since - 1, first + 1))
            raise Diverged(f"{error}; {way_back(run)}", error.since) from None
        finally:
            if log is not None:
                log.close()
    stopped = None if state.step >= training.steps else stopped
    return TrainingResult(run, state.step, checkpoint_path(run, state.step), state.seconds, stopped)


def draw_samples(state: TrainingState, run: Path, n: int = 64, steps: int = 50) -> Path:
    """A grid of quick samples (DDIM) from the averaged weights, as a PNG in the run's folder."""
    model = state.model
    calls = min(steps, model.diffusion.num_timesteps)
    images = model.sample(n, sampler="ddim", steps=calls)
    path = run / "samples" / f"step-{state.step:08d}.png"
    save_png(image_grid(images, model.facts.grey_levels), path)
    return path
