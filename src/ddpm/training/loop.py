"""The training loop: Algorithm 1 again and again, kept safe, logged and shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ddpm.codec.learning import steps_after
from ddpm.config import Config
from ddpm.data.exact_files import save_png
from ddpm.data.images import ImageSource, OnDevice
from ddpm.data.labels import check_labels
from ddpm.data.loader import Batch, labelled_batches
from ddpm.data.order import DataOrder
from ddpm.errors import Diverged
from ddpm.figures.grid import image_grid
from ddpm.likelihood.bound import stratified_bound
from ddpm.likelihood.plan import Plan
from ddpm.provenance import Provenance
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import RunLog, read_stats
from ddpm.runtime import parallel
from ddpm.runtime.paths import user_path
from ddpm.runtime.progress import Progress
from ddpm.training.divergence import LossWatch
from ddpm.training.prepare import prepare_run
from ddpm.training.signals import catch_signals
from ddpm.training.state import TrainingState
from ddpm.training.step import Loss, TrainingStep, learning_rate
from ddpm.training.throughput import Throughput
from ddpm.training.wandb_curves import open_wandb

STOPS = (None, "max_minutes", "SIGINT", "SIGTERM")  # why a run may end early
GRID = 64  # images of a sample grid, and held-out images whose bits/dim are estimated
DRAWS = 8  # timesteps of each of these images
QUICK = 50  # network calls of a sample grid
ROWS = 16  # of a grid of samples of a conditional model
SHOWS = 0.05  # abar_T above which samples that begin with pure noise begin with something else

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Args:
        run: its folder.
        step: steps taken in all.
        checkpoint: the newest file.
        seconds: of training, over all its sessions.
        stopped: None if it is complete, else why not: SIGINT, SIGTERM or max_minutes.
    """

    run: Path
    step: int
    checkpoint: Path
    seconds: float
    stopped: str | None


def train(
    config: Config,
    images: ImageSource,
    run: str | Path,
    *,
    loss: Loss | None = None,
    resume: bool = False,
    held_out: ImageSource | None = None,
    other_images: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train until `config.training.steps`, a signal or `max_minutes`; always ends saved.

    A complete run ends with its denoising error measured and stored.

    Args:
        config: what to train; with `resume`, the same as before (steps may grow).
        images: the training images, any `ImageSource`. They decide the size and the channels, and
            what the classes of a conditional model are called.
        run: folder for checkpoints, curves and sample grids.
        loss: what to minimise instead of `config.training.loss`: any function with the signature
            of `ddpm.Loss`.
        resume: go on from the newest good checkpoint in `run`.
        held_out: images whose bits/dim are estimated whenever samples are drawn.
        other_images: resume although the images are not those that the run was trained on so far.
        progress: counts steps; a detail of its label is how it goes.

    Raises:
        DdpmError: the run cannot be written or resumed, or an image cannot be read.
        Diverged: its loss is no longer finite, or far above what it was; nothing is saved then.
    """
    folder = RunFolder(user_path(run))
    with parallel.agreement():
        state = prepare_run(config, images, folder, resume, loss, held_out, other_images)
    session = Session(state, folder, images, held_out, loss, progress)
    with catch_signals() as signals:
        try:
            stopped = session.run(signals)
        except Diverged as error:
            first = max(error.since - 1, session.first + 1)
            parallel.on_main(lambda: folder.quarantine(first))
            raise Diverged(f"{error}; {folder.recovery_hint()}", error.since) from None
        finally:
            session.close()
    complete = state.step >= config.training.steps
    if complete and state.denoising_error is None:
        measure_and_save(state, folder, images, progress)
    return TrainingResult(
        folder.path,
        state.step,
        folder.checkpoint(state.step),
        state.seconds,
        None if complete else stopped,
    )


class Session:
    """A run from when it is started or resumed until it ends or stops.

    Args:
        state: what to go on from.
        folder: of the run.
        images, held_out, loss, progress: see `train`.
    """

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        images: ImageSource,
        held_out: ImageSource | None,
        loss: Loss | None,
        progress: Progress | None,
    ) -> None:
        training = state.config.training
        self.state, self.folder, self.held_out, self.progress = state, folder, held_out, progress
        self.training = training
        source = images.to(state.device) if isinstance(images, OnDevice) else images
        self.step = TrainingStep(state, loss)
        order = DataOrder(len(source), training.batch_size, training.seed)
        classes, names = state.config.classes, state.config.data.class_names
        labels = check_labels(images, classes, names) if classes else None
        self.batches = labelled_batches(
            source, labels, order, state.step, training.steps, self.step.rows
        )
        known = [
            line["loss"]
            for line in read_stats(folder)
            if line["step"] <= state.step and "loss" in line
        ]
        self.watch = LossWatch(training, known, simple=loss is None and training.loss == "simple")
        self.run_log = parallel.on_main(self._open_run_log)
        self.throughput = Throughput(state)
        if training.optimizer != "adam" and parallel.is_main():
            log.info("the weights are moved by %s", state.optimizers)
        left = state.diffusion.schedule.alphas_cumprod[-1]
        if left > SHOWS and state.step == 0 and parallel.is_main():
            log.warning(
                "the schedule ends at abar = %.2g, where x_T still shows the image, but samples "
                "begin with pure noise; end it lower, as with a higher diffusion.beta_end (20 / T "
                "is the paper's) or more timesteps",
                left,
            )
        self.begun, self.earlier, self.first = time.monotonic(), state.seconds, state.step
        self.losses: list[Tensor] = []
        self.saved_at = state.step
        self.note = ""

    def _open_run_log(self) -> RunLog:
        project = self.training.wandb_project
        curves = open_wandb(project, self.folder, self.state.config) if project else None
        return RunLog(self.folder, self.state.step, curves)

    def run(self, signals: list[str]) -> str | None:
        """Take steps until the end; why it stopped before, if it did.

        Args:
            signals: those that have come, which may grow meanwhile.
        """
        state, training = self.state, self.training
        self.show()
        for batch in saved_on_errors(parallel.lockstep(self.batches), self.save):
            known = () if batch.labels is None else (batch.labels,)
            self.losses.append(self.step(batch.images, *known))
            state.denoising_error = state.coding = state.held_out = None  # were of other weights
            state.seconds = self.earlier + time.monotonic() - self.begun
            ended = state.step == training.steps
            due = state.step % training.save_every == 0
            stopped = self.stop_reason(signals)
            if state.step % training.log_every == 0 or due or ended or stopped:
                self.log_progress()
            if due or ended or stopped:
                self.save()
            self.show()
            if training.sample_every and state.step % training.sample_every == 0:
                draw_samples(state, self.folder)
                if self.held_out is not None:
                    self.log_values(bits_per_dim=estimate_bpd(state, self.held_out))
            if stopped:
                return stopped
        return None

    def stop_reason(self, signals: list[str]) -> str | None:
        """Why to stop after this step; all processes agree on it."""
        stopped = None
        minutes = self.training.max_minutes
        if minutes and self.state.seconds - self.earlier > 60 * minutes:
            stopped = "max_minutes"
        if signals:
            stopped = signals[0]
        return STOPS[parallel.all_reduce_max(STOPS.index(stopped))]

    def log_progress(self) -> None:
        """Write the mean loss since the last report; refuse to go on if the run diverged."""
        state = self.state
        loss = self.watch.see(parallel.mean(torch.stack(self.losses)).tolist(), state.step)
        self.losses.clear()
        seconds = time.monotonic() - self.begun
        rate = (state.step - self.first) * self.training.batch_size / seconds
        lr = learning_rate(self.training, state.step - 1)
        self.log_values(loss=loss, lr=lr, **self.throughput.figures(rate))
        self.note = f": loss {loss:.4f}  {self.throughput.note(rate)}"

    def log_values(self, **values: float) -> None:
        """A line of the log."""
        with parallel.agreement():
            if self.run_log is not None:
                self.run_log.write(self.state.step, **values)

    def show(self) -> None:
        """Tell how far the run is."""
        if self.progress is not None:
            self.progress(self.state.step, self.training.steps, f"training{self.note}")

    def save(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self.state.step != self.saved_at:
            self.state.save(self.folder)
        self.saved_at = self.state.step

    def close(self) -> None:
        """Close the log."""
        if self.run_log is not None:
            self.run_log.close()


def measure_and_save(
    state: TrainingState, run: RunFolder, images: ImageSource, progress: Progress | None
) -> None:
    """Measure the denoising error of a complete run, learn its last stage, and store both in its
    checkpoint."""
    training = state.config.training
    try:
        model = state.model
        steps = steps_after(training.steps, training.last_stage_steps, model.format)
        state.denoising_error = model.measure(images, progress=progress)
        if not model.diffusion.learns_variance and steps != 0:
            state.coding = model.learn_coding(images, steps=steps, progress=progress)
    except KeyboardInterrupt:
        log.warning(
            "%s is complete and saved, but it is not measured; `ddpm measure` does it later",
            run.path,
        )
        raise
    state.save(run)


def draw_samples(state: TrainingState, run: RunFolder) -> None:
    """A grid of quick samples (DDIM) from the averaged weights, as a PNG in the run's folder; of a
    conditional model a row for each class, of the first `ROWS` at most."""
    model = replace(state.model, precision=state.precision)
    plan = Plan(min(QUICK, model.diffusion.num_timesteps))
    if classes := min(state.config.classes, ROWS):
        drawn = [
            model.given(label).sample(GRID // classes, sampler="ddim", plan=plan)
            for label in range(classes)
        ]
        images = torch.cat(drawn)
    else:
        images = model.sample(GRID, sampler="ddim", plan=plan)
    grid = image_grid(images, model.format, GRID // classes if classes else None)
    path = run.sample_grid(state.step)
    how = {"sampler": "ddim", "plan": plan.document(), "seed": 0, "step": state.step}
    text = Provenance.of(model, str(run.path), (), **how).chunks()
    parallel.on_main(lambda: save_png(grid, path, text))


def estimate_bpd(state: TrainingState, held_out: ImageSource) -> float:
    """Bits/dim of the first held-out images under the averaged weights, from a few t an image."""
    model = state.model
    images = held_out[torch.arange(min(GRID, len(held_out)))].to(state.device)
    draws = min(DRAWS, model.diffusion.num_timesteps)
    bound = stratified_bound(model.diffusion, model.denoiser(), images, model.format, draws=draws)
    return float(bound.mean())


def saved_on_errors(batches: Iterable[Batch], save: Callable[[], None]) -> Iterator[Batch]:
    """The batches; if one cannot be read, the run is saved before the error goes on.

    A picture that broke on step 4,999 must not cost 4,999 steps.
    """
    try:
        yield from batches
    except Exception:
        save()
        raise
