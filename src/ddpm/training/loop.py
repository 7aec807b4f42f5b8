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
from torch import Tensor

from ddpm import parallel
from ddpm.bound import stratified_bound
from ddpm.checkpoint import atomically, checkpoint_path, checkpoints
from ddpm.config import Config, TrainingConfig
from ddpm.data import DataOrder, ImageSource, MemoryImages, to_unit_range, training_batches
from ddpm.errors import DdpmError, Diverged, check
from ddpm.figures.grid import image_grid, save_png
from ddpm.losses import training_loss
from ddpm.model import DataFacts, best_device, load, resolve_precision
from ddpm.randomness import Randomness, derive_key
from ddpm.times import BoundTimes
from ddpm.training.compiling import compiled
from ddpm.training.divergence import LossWatch
from ddpm.training.keeping import prepare_folder, saved_on_errors, set_aside, way_back
from ddpm.training.log import RunLog, progress_bar, read_stats
from ddpm.training.placement import averaging, gradients_wait
from ddpm.training.state import TrainingState
from ddpm.training.throughput import Throughput
from ddpm.training.wandb import open_wandb

STOPS = (None, "max_minutes", "SIGINT", "SIGTERM")  # why a run may end early


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


@contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect SIGINT and SIGTERM in a list instead of dying; a second one dies as usual.

    One of several processes only counts them: a launcher passes on the signals that its processes
    have received already.
    """
    caught: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        if parallel.size() == 1:
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


def prepare_run(config: Config, source: ImageSource, run: Path, resume: bool) -> TrainingState:
    """The state to start from: fresh, or the newest good checkpoint of `run`.

    Raises:
        DdpmError: the run exists and `resume` is off, or the other way round; or they do not fit;
            or there is no room or no right to write in `run`.
    """
    batch, processes = config.training.batch_size, parallel.size()
    parts = processes * config.training.accumulate
    check(
        batch % parts == 0,
        f"a batch of {batch} cannot be cut into {parts} equal parts (processes: {processes}, "
        f"micro-batches of each: {config.training.accumulate}); change --training.batch-size",
    )
    facts = DataFacts(source.shape, source.grey_levels, source.name)
    state = TrainingState(config, facts, best_device())
    if resume:
        state.restore(run)
    elif checkpoints(run):
        raise DdpmError(
            f"{run} already holds a run; add --resume to go on with it or choose another --out"
        )
    elif config.training.start_from is not None:
        state.start_from(load(config.training.start_from, "cpu"))
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    if parallel.is_main():
        atomically(run / "config.json", lambda partial: partial.write_text(text))
        prepare_folder(run, state.nbytes)
    return state


def open_log(config: Config, run: Path, step: int) -> RunLog:
    """Where the measurements of a run go, from `step` on."""
    project = config.training.wandb
    return RunLog(run, step, open_wandb(project, run, config) if project else None)


def train(
    config: Config,
    source: ImageSource,
    run: Path,
    *,
    resume: bool = False,
    held_out: ImageSource | None = None,
) -> TrainingResult:
    """Train until `config.training.steps`, a signal or `max_minutes`; always ends saved.

    Args:
        config: what to train; with `resume`, the same as before (steps may grow).
        source: the training images.
        run: folder for checkpoints, curves and sample grids.
        resume: go on from the newest good checkpoint in `run`.
        held_out: images whose bits/dim are estimated whenever samples are drawn.

    Raises:
        DdpmError: the run cannot be written or resumed, or an image cannot be read.
        Diverged: its loss is no longer finite, or far above what it was; nothing is saved then.
    """
    with parallel.agreement():
        state = prepare_run(config, source, run, resume)
    training = config.training
    if isinstance(source, MemoryImages):
        source = source.to(state.device)
    step = TrainingStep(state)
    order = DataOrder(len(source), training.batch_size, training.seed)
    batches = training_batches(source, order, state.step, training.steps, step.share)
    known = [line for line in read_stats(run) if line["step"] <= state.step]
    watch = LossWatch(training, [line["loss"] for line in known if "loss" in line])
    log = parallel.on_main(lambda: open_log(config, run, state.step))
    pace = Throughput(state)
    begun, earlier, first = time.monotonic(), state.seconds, state.step
    stopped: str | None = None
    losses: list[Tensor] = []
    saved_at = state.step

    def save() -> None:
        nonlocal saved_at
        if state.step != saved_at:
            state.save(run)
        saved_at = state.step

    def report() -> None:
        """Write the mean loss since the last report; refuse to go on if the run diverged."""
        loss = watch.see(parallel.mean(torch.stack(losses)).tolist(), state.step)
        losses.clear()
        rate = (state.step - first) * training.batch_size / (time.monotonic() - begun)
        write(loss=loss, lr=learning_rate(training, state.step - 1), **pace.figures(rate))
        bar.update(task, note=f"loss {loss:.4f}  {pace.note(rate)}")

    def write(**values: float) -> None:
        with parallel.agreement():
            if log is not None:
                log.write(state.step, **values)

    with catch_signals() as signals, progress_bar("steps") as bar:
        task = bar.add_task("training", total=training.steps, completed=state.step, note="")
        try:
            for images in saved_on_errors(parallel.abreast(batches), save):
                losses.append(step(images))
                state.seconds = earlier + time.monotonic() - begun
                bar.update(task, completed=state.step)
                ended = state.step == training.steps
                due = state.step % training.save_every == 0
                if training.max_minutes and state.seconds - earlier > 60 * training.max_minutes:
                    stopped = "max_minutes"
                if signals:
                    stopped = signals[0]
                stopped = STOPS[parallel.highest(STOPS.index(stopped))]
                if state.step % training.log_every == 0 or due or ended or stopped:
                    report()
                if due or ended or stopped:
                    save()
                if training.sample_every and state.step % training.sample_every == 0:
                    draw_samples(state, run)
                    if held_out is not None:
                        write(bits_per_dim=estimate_bpd(state, held_out))
                if stopped:
                    break
        except Diverged as error:
            from_step = max(error.since - 1, first + 1)
            parallel.on_main(lambda: set_aside(run, from_step))
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
    parallel.on_main(lambda: save_png(image_grid(images, model.facts.grey_levels), path))
    return path


def estimate_bpd(state: TrainingState, held_out: ImageSource, n: int = 64) -> float:
    """Bits/dim of the first held-out images under the averaged weights, from a few t an image."""
    model = state.model
    images = held_out[torch.arange(min(n, len(held_out)))].to(state.device)
    draws = min(8, model.diffusion.num_timesteps)
    bound = stratified_bound(
        model.diffusion, model.denoiser, images, model.facts.grey_levels, draws=draws
    )
    return float(bound.mean())
