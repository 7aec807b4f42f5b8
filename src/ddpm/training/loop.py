"""The training loop: the paper's Algorithm 1 with warm-up, clipping and averaging."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm.cli.progress import progress_bar
from ddpm.config import Config
from ddpm.data import DataOrder, ImageSource, MemoryImages, training_batches
from ddpm.data.exact_files import save_png
from ddpm.errors import DdpmError, Diverged, check
from ddpm.figures.grid import image_grid
from ddpm.likelihood.bound import stratified_bound
from ddpm.model import DataFacts, load
from ddpm.runs.folder import checkpoint_path, checkpoints, prepare_folder, set_aside, way_back
from ddpm.runs.log import RunLog, read_stats
from ddpm.runtime import parallel
from ddpm.runtime.atomic import atomically
from ddpm.runtime.device import best_device
from ddpm.training.divergence import LossWatch
from ddpm.training.signals import catch_signals
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep, learning_rate
from ddpm.training.throughput import Throughput
from ddpm.training.wandb_curves import open_wandb

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


def saved_on_errors(batches: Iterable[Tensor], save: Callable[[], None]) -> Iterator[Tensor]:
    """The batches; if one cannot be had, what was learned so far is saved before the error goes on.

    A picture that broke on step 4,999 must not cost 4,999 steps.
    """
    try:
        yield from batches
    except Exception:
        save()
        raise
