"""What a run will cost on this machine, before it begins.

Parameters, arithmetic and the size of a checkpoint are counted. Memory is estimated without taking
it. The time of a step is measured: a few real steps on random images, as large as time and memory
allow, from which the whole batch follows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ddpm.codec.learning import network_calls, steps_after
from ddpm.config import Config
from ddpm.data.images import ImageFormat, Shape
from ddpm.likelihood.denoising_error import IMAGES, measured_timesteps
from ddpm.runs.checkpoint import HEADER
from ddpm.runtime.device import in_precision, resolve_precision
from ddpm.runtime.progress import Progress
from ddpm.training.loop import DRAWS, GRID, QUICK
from ddpm.training.optimizers import ADAM, MUON, inner_matrices
from ddpm.training.precision import training_precision
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep, recompute_activations
from ddpm.training.throughput import outline, training_flops, without_class

FLOAT = 4  # bytes
PROGRAM = 350_000_000  # bytes of Python and PyTorch before they hold a network
WORKSPACE = 0.3  # of what is kept for the backward pass, for what comes and goes beside it
REPEATS = 5  # of the largest step that is timed, at most
LABEL = "timing training steps"


@dataclass(frozen=True)
class Memory:
    """What a training step takes at most, estimated.

    Args:
        state: bytes of weights, gradients, averages and what the optimiser remembers.
        fixed: bytes that a forward pass keeps besides, however many images it sees.
        an_image: bytes that it keeps for the backward pass for each image, and what comes and goes.
    """

    state: int
    fixed: int
    an_image: int

    def of(self, images: int) -> int:
        """Bytes of the process, with a micro-batch of that many images."""
        return PROGRAM + self.state + self.fixed + images * self.an_image


@dataclass(frozen=True)
class StepTime:
    """How long steps take.

    Args:
        fixed: seconds of what is done once a step: clipping, the optimiser, averaging.
        an_image: seconds of the two passes of each image.
        images: of the largest step that was timed.
        repeats: how often that one was.
    """

    fixed: float
    an_image: float
    images: int
    repeats: int

    def of(self, batch: int) -> float:
        """Seconds of a step of that many images, in however many micro-batches."""
        return self.fixed + batch * self.an_image


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Args:
        config: of the run.
        device: where it is trained, in one process.
        free: bytes of memory that are free there; None where that is not known.
    """

    config: Config
    device: torch.device
    free: int | None = None

    @property
    def format(self) -> ImageFormat:
        """Of the images; how many grey levels they have costs nothing."""
        data = self.config.data
        return ImageFormat(data.channels, data.image_size, data.image_size)

    @cached_property
    def precision(self) -> Literal["fp32", "bf16"]:
        """In which memory is counted: what is asked for; fp32 on a CPU where `probe` decides."""
        return resolve_precision(self.config.training.precision, self.device)

    @cached_property
    def network(self) -> nn.Module:
        """The network without its numbers; somebody's own may need them to be built."""
        try:
            return outline(self.config, self.format.shape)
        except RuntimeError:
            return self.config.build_network(self.format.shape)

    @property
    def parameters(self) -> int:
        """How many numbers training sets."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def moments(self) -> int:
        """How many numbers the optimiser remembers."""
        inner: set[str] = set()
        if self.config.training.optimizer == "muon":
            channels = self.format.channels
            learned = self.config.diffusion.build().learns_variance
            inner = inner_matrices(self.network, channels, channels * (2 if learned else 1))
        return sum(
            len(MUON if name in inner else ADAM) * parameter.numel()
            for name, parameter in self.network.named_parameters()
        )

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint on disk while the run goes on."""
        tensors = self.network.state_dict()
        numbers = 2 * sum(tensor.numel() for tensor in tensors.values()) + self.moments
        betas = 2 * FLOAT * self.config.diffusion.build().num_timesteps
        return FLOAT * numbers + betas + 2 * HEADER * len(tensors)

    @property
    def measured(self) -> int:
        """Bytes that the last checkpoint has more: the denoising error, in pixels and in
        frequencies."""
        times = measured_timesteps(self.config.diffusion.build().num_timesteps)
        numbers = self.format.channels * self.format.height * self.format.width
        return 2 * FLOAT * len(times) * numbers

    @property
    def micro_batch(self) -> int:
        """Images of one forward pass."""
        return -(-self.config.training.batch_size // self.config.training.accumulate)

    @cached_property
    def flops(self) -> int | None:
        """Operations of one image of a training step; None where they cannot be counted."""
        try:
            return training_flops(without_class(self.network, self.config), self.format.shape)
        except Exception:  # it is somebody's own network, which may do anything
            return None

    @cached_property
    def memory(self) -> Memory | None:
        """The estimate, computed on no numbers; None for a network that cannot do without."""
        wanted = self.config.training.activation_checkpointing
        try:
            kept, more = (self._kept(images, wanted) for images in (1, 2))
            everything = self._kept(2, False) - self._kept(1, False) if wanted else more - kept
        except Exception:  # see `flops`
            return None
        state = FLOAT * (3 * self.parameters + self.moments)
        an_image = more - kept + round(WORKSPACE * everything)
        return Memory(state, max(2 * kept - more, 0), an_image)

    def _kept(self, images: int, recomputed: bool) -> int:
        """Bytes that a forward pass keeps."""
        shape = self.format.shape
        try:
            with FakeTensorMode():
                network = self.config.build_network(shape)
                recompute_activations(network, recomputed)
                forward = in_precision(without_class(network, self.config), self.precision)
                return _kept_by(network, forward, images, shape)
        except RuntimeError:  # it looks at t; without numbers all is counted in float32
            network = outline(self.config, shape)
            recompute_activations(network, recomputed)
            with torch.device("meta"):
                return _kept_by(network, without_class(network, self.config), images, shape)

    @property
    def fits(self) -> bool | None:
        """Whether a step fits into memory; None where that is not known."""
        if self.memory is None or self.free is None:
            return None
        return self.memory.of(self.micro_batch) <= self.free

    @property
    def parts(self) -> int | None:
        """The smallest `training.accumulate` with which a step fits; None if there is none."""
        batch = self.config.training.batch_size
        if self.memory is None or self.free is None:
            return None
        wholes = (parts for parts in range(1, batch + 1) if batch % parts == 0)
        return next((p for p in wholes if self.memory.of(batch // p) <= self.free), None)

    @property
    def most(self) -> int:
        """Images of the largest step that can be timed; 0 if not even one fits."""
        if self.memory is None or self.free is None:
            return self.micro_batch
        left = self.free - self.memory.of(0)
        return max(0, min(self.micro_batch, left // max(self.memory.an_image, 1)))

    @property
    def calls(self) -> int:
        """Network calls on an image besides the steps: grids, bits/dim, the denoising error, and
        at most those for the last stage.
        """
        training, total = self.config.training, self.config.diffusion.build().num_timesteps
        every = training.sample_every
        grid = GRID * (min(QUICK, total) + min(DRAWS, total))
        grids = training.steps // every if every else 0
        last = steps_after(training.steps, training.last_stage_steps, self.format)
        return (
            grids * grid
            + IMAGES * len(measured_timesteps(total))
            + network_calls(self.format, last)
        )

    def seconds(self, step: StepTime) -> tuple[float, float]:
        """Of all steps, and of all network calls besides, a third of an image of a step each."""
        training = self.config.training
        passes = 4 if training.activation_checkpointing else 3
        return training.steps * step.of(training.batch_size), self.calls * step.an_image / passes


def kept_for_backward(call: Callable[[], object], network: nn.Module) -> int:
    """Bytes that autograd keeps of a call, each storage once, without the weights.

    Args:
        call: a forward pass; a backward pass may follow in it.
        network: whose weights are not counted.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # they live, so that no number comes twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in kept.values())


def _kept_by(
    network: nn.Module, forward: Callable[[Tensor, Tensor], Tensor], images: int, shape: Shape
) -> int:
    """The same of a call on that many images."""
    x, t = torch.zeros(images, *shape), torch.zeros(images, dtype=torch.long)
    return kept_for_backward(lambda: forward(x, t), network)


def time_steps(
    take: Callable[[int], object],
    move: Callable[[], object],
    largest: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress | None = None,
) -> StepTime:
    """How long a step takes, from steps of 1, 2, 4, ... images until time is up.

    The first one warms up and counts only if it used up the time.

    Args:
        take: does a whole step of that many images, and returns when it is done.
        move: does what is done once a step, and returns when it is done.
        largest: images of the largest step.
        seconds: that are to be spent, about; no step is begun that would need more.
        clock: gives seconds.
        progress: counts seconds.
    """
    begun = clock()

    def timed(call: Callable[[], object]) -> float:
        before = clock()
        call()
        now = clock()
        if progress is not None:
            progress(min(round(now - begun), round(seconds)), round(seconds), LABEL)
        return now - before

    def fits(guess: float) -> bool:
        return clock() - begun + guess <= seconds

    images, spent = 1, [timed(partial(take, 1))]
    if fits(spent[-1]):
        spent.append(timed(partial(take, 1)))
    while images < largest and fits(3 * spent[-1]):
        images = min(2 * images, largest)
        spent = [timed(partial(take, images))]
    while len(spent) <= REPEATS and fits(spent[-1]):
        spent.append(timed(partial(take, images)))
    good = spent[1:] or spent  # the first of a size prepares what the others find
    moves = [timed(move)]
    while len(moves) < REPEATS and fits(moves[-1]):
        moves.append(timed(move))
    whole, fixed = statistics.median(good), statistics.median(moves)
    fixed = min(fixed, whole)
    return StepTime(fixed, (whole - fixed) / images, images, len(good))


def probe(cost: Cost, seconds: float, progress: Progress | None = None) -> tuple[Cost, StepTime]:
    """Time steps of a run on random images; without torch.compile, which takes minutes.

    Args:
        cost: of the run; at least one image must fit (`Cost.most`).
        seconds: that are to be spent, about.
        progress: counts seconds.

    Returns:
        The cost with the precision that the run would take, and the time.
    """
    device, image_format = cost.device, cost.format
    state = TrainingState(cost.config, image_format, device)
    config = _with_training(cost.config, precision=training_precision(state))
    cost = replace(cost, config=config)
    recompute_activations(state.network, config.training.activation_checkpointing)

    def done() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def take(images: int) -> None:
        state.config = _with_training(config, batch_size=images, accumulate=1, compile=False)
        step = TrainingStep(state)
        pixels = torch.randint(0, image_format.levels, (images, *image_format.shape))
        labels = torch.zeros(images, dtype=torch.long) if config.classes else None
        step(pixels.to(torch.uint8), labels)
        done()

    def move() -> None:
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.training.grad_clip)
        state.optimizers.step(0.0)
        state.ema.update(state.network, state.step)
        done()

    return cost, time_steps(take, move, cost.most, seconds, progress=progress)


def _with_training(config: Config, **changes: Any) -> Config:
    """The configuration with other training settings."""
    return replace(config, training=replace(config.training, **changes))
