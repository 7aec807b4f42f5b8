"""One point of `growth.py`: what some work takes on images of one size, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from ddpm import Config, Ddpm, ImageFormat, Plan
from ddpm.config import DataConfig, TrainingConfig, UNetConfig
from ddpm.runtime import parallel
from ddpm.runtime.device import Precision, best_device, resolve_precision
from ddpm.runtime.memory import peak_memory
from ddpm.training.proposal import NETWORKS
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep

WORKS = ("training", "sampling", "likelihood")
BATCHES = 3  # that are timed where nobody asks for a number of images


@dataclass(frozen=True)
class Point:
    """What is done, on how much.

    Args:
        work: training, sampling or likelihood.
        side: of the images.
        batch: images at a time; of several processes training shares them.
        images: how many in all; 0 for a few batches, to find the time of one image.
        processes: that share the work.
    """

    work: str
    side: int
    batch: int
    images: int = 0
    processes: int = 1

    @property
    def key(self) -> str:
        """A name."""
        number = f", {self.images} images" if self.images else ""
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.work}, {self.side}x{self.side}, batch {self.batch}{number}{several}"

    @property
    def total(self) -> int:
        """Images in all."""
        return self.images or BATCHES * self.batch * self.processes


def config_for(point: Point, precision: Precision, device: torch.device) -> Config:
    """The network that is proposed for images of this size."""
    small, large, mult, attention = NETWORKS[point.side]
    on_gpu = device.type == "cuda"
    network = UNetConfig(
        ch=large if on_gpu else small,
        ch_mult=mult,
        attn_resolutions=attention,
        dropout=0.1 if on_gpu else 0.0,
        norm_groups=32 if on_gpu else 16,
    )
    batch = min(point.batch, point.total)
    training = TrainingConfig(batch_size=batch, precision=precision)
    data = DataConfig(image_size=point.side)
    return Config(data=data, network=network, training=training)


def measure(point: Point, seconds: float, calls: int, precision: str) -> dict[str, Any]:
    """Do the work for about so many seconds.

    Args:
        point: what to do.
        seconds: after the first batch, which is not timed.
        calls: network calls of a sample, and steps of the bound.
        precision: auto, fp32 or bf16.

    Returns:
        `images` that were worked on, the `seconds` they took, `an_image` the seconds of one, and
        `memory` in bytes of all processes; in other processes than the main one nothing.
    """
    device = best_device()
    floats = resolve_precision(cast(Precision, precision), device)
    with parallel.process_group():
        done, spent = 0, 0.0
        batches = WORK[point.work](point, config_for(point, floats, device), device, calls)
        next(batches)  # the first warms up
        begun = time.perf_counter()
        while done < point.total and parallel.all_reduce_max(int(spent >= seconds)) == 0:
            done += next(batches)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent = time.perf_counter() - begun
        most = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory() or 0
        memory = torch.tensor([float(most)], dtype=torch.float64)
        parallel.all_reduce_sum(memory)
        if not parallel.is_main():
            return {}
    figures = {"images": done, "seconds": spent, "an_image": spent / done}
    return {**figures, "memory": int(memory[0])}


def random_images(count: int, side: int) -> torch.Tensor:
    """A set of images in memory."""
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def training(point: Point, config: Config, device: torch.device, calls: int) -> Iterator[int]:
    """Steps over a set in memory, again and again."""
    image_format = ImageFormat(3, point.side, point.side)
    state = TrainingState(config, image_format, device)
    step, images = TrainingStep(state), random_images(max(point.total, 1), point.side)
    batch = config.training.batch_size
    while True:
        rows = torch.randint(0, len(images), (batch,))
        step(images[rows[step.rows]])
        yield batch


def sampling(point: Point, config: Config, device: torch.device, calls: int) -> Iterator[int]:
    """DDIM, into a tensor that holds all images."""
    model, plan = model_of(config, point.side, device), Plan(calls)
    images = torch.ones(point.total, 3, point.side, point.side, dtype=torch.uint8)
    count = min(point.batch * point.processes, point.total)
    first = 0
    while True:
        drawn = model.sample(count, first=first, batch_size=point.batch, sampler="ddim", plan=plan)
        rows = torch.arange(first, first + count) % len(images)
        images[rows] = drawn
        first += count
        yield count


def likelihood(point: Point, config: Config, device: torch.device, calls: int) -> Iterator[int]:
    """The bound of a set in memory, batch by batch."""
    model, plan = model_of(config, point.side, device), Plan(calls)
    images = random_images(point.total, point.side)
    count = min(point.batch * point.processes, point.total)
    first = 0
    while True:
        rows = torch.arange(first, first + count) % len(images)
        model.bound(images[rows], plan=plan, batch_size=point.batch)
        first += count
        yield count


Worker = Callable[[Point, Config, torch.device, int], Iterator[int]]
WORK: dict[str, Worker] = dict(zip(WORKS, (training, sampling, likelihood), strict=True))


def model_of(config: Config, side: int, device: torch.device) -> Ddpm:
    """An untrained model: speed does not depend on the weights."""
    image_format = ImageFormat(3, side, side)
    network = config.build_network(image_format.shape).requires_grad_(False)
    return Ddpm(config, image_format, network, precision=config.training.precision).to(device)
