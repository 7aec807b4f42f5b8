"""Sampling speed of the CIFAR-10 network against the peers, as ratios in one run.

    python benchmarks/sample.py [--batch 16] [--rounds 5] [--device cpu]

First the network call that sampling consists of. Then whole sampling of `--calls` steps by DDIM:
`diffusers`' `DDIMScheduler` loop around its network against `Ddpm.sample`, noise, maths and
conversion to pixels included, and the memory that stays with the number of steps: the highest
that was allocated, of 5 and of `--calls` steps (CUDA), or the growth of the process (CPU).
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from peers import diffusers_peer
from train import Options as TrainOptions
from train import timed, variants

from ddpm import Ddpm, ImageFormat, Plan, get_preset
from ddpm.runtime.device import Precision

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


def our_model(device: torch.device, precision: Precision) -> Ddpm:
    """An untrained CIFAR-10 model: speed does not depend on the weights."""
    config, image_format = get_preset("cifar10"), ImageFormat(3, 32, 32)
    network = config.build_network(image_format.shape).requires_grad_(False)
    return Ddpm(config, image_format, network, precision=precision).to(device)


def diffusers_sampling(batch: int, device: torch.device, calls: int) -> Callable[[], object]:
    """Its DDIM loop, as its pipeline has it."""
    from diffusers import DDIMScheduler

    peer = diffusers_peer(batch, device, bf16=False, channels_last=False, compiled=False)
    network = peer.network.eval()
    scheduler = DDIMScheduler(num_train_timesteps=1000)

    def sample() -> torch.Tensor:
        scheduler.set_timesteps(calls)
        x = torch.randn(batch, 3, 32, 32, device=device)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(network(x, t).sample, t, x).prev_sample
        return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    return sample


def race(
    rows: dict[str, Callable[[], object]], rounds: int, device: torch.device, images: int, what: str
) -> None:
    """Time every row in turn and print medians and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(rounds + 1):
        for name, call in rows.items():
            spent = timed(call, device)
            if turn > 0:  # the first round warms up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
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
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
