"""Sampling speed of the CIFAR-10 network against the peers, as ratios in one run.

    python benchmarks/sample.py [--batch 16] [--rounds 5] [--device cpu]

First the network call that sampling consists of. Then whole sampling of `--calls` steps by DDIM:
`diffusers`' `DDIMScheduler` loop around its network against `Ddpm.sample`, noise, maths and
conversion to pixels included, and the memory that stays with the number of steps: the highest
that was allocated, of 5 and of `--calls` steps (CUDA), or the growth of the process (CPU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from peers import diffusers_sampling, medians, our_model
from train import Options as TrainOptions
from train import variants

from ddpm import Ddpm, Plan
from ddpm.runtime.device import Precision
from ddpm.runtime.memory import peak_memory

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch: int = 16
    """Images at a time."""
    calls: int = 20
    """Network calls of whole sampling."""
    rounds: int = 5
    """How often each variant is timed; whole sampling a third as often."""
    device: str = "cpu"
    """cpu or cuda."""


def race(
    rows: dict[str, Callable[[], object]], rounds: int, device: torch.device, images: int, what: str
) -> None:
    """Time every row in turn and print medians and ratios to the first."""
    medians(rows, 1, device)  # warms up
    median = medians(rows, rounds, device)
    base = median[next(iter(rows))]
    print(f"\n{what}\n| variant | s | images/s | ratio |\n| --- | --- | --- | --- |")
    for name, value in median.items():
        print(f"| {name} | {value:.3f} | {images / value:.2f} | {base / value:.2f} |")


def highest_memory(model: Ddpm, batch: int, calls: int) -> int:
    """Bytes at most: allocated on the device while sampling, or of the process so far."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model.sample(batch, batch_size=batch, sampler="ddim", plan=Plan(calls))
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_memory() or 0


def main(options: Options) -> None:
    """Print all tables."""
    device, batch, calls = torch.device(options.device), options.batch, options.calls
    print(f"{device}, batch {batch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    network_calls = {
        name: peer.call
        for name, peer in variants(TrainOptions(batch=batch, device=options.device)).items()
    }
    race(network_calls, options.rounds, device, batch, "one network call")
    rows = {"diffusers, as it comes": diffusers_sampling(batch, device, calls)}
    for precision in PRECISIONS:
        model = our_model(device, precision)
        rows[f"ddpm, {precision}"] = lambda model=model: model.sample(  # type: ignore[misc]
            batch, batch_size=batch, sampler="ddim", plan=Plan(calls)
        )
    race(rows, max(1, options.rounds // 3), device, batch, f"DDIM of {calls} calls")
    model = our_model(device, "fp32")
    few, many = (highest_memory(model, batch, n) / 2**20 for n in (5, calls))
    print(f"\nhighest memory: {few:.0f} MiB with 5 steps, {many:.0f} MiB with {calls}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
