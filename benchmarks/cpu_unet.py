"""Speed of the 35.7M CIFAR-10 network on this machine against `diffusers`, as ratios in one run.

    python benchmarks/cpu_unet.py [--batch 16] [--rounds 3]

The peer is `UNet2DModel` with the same layers, float32, default memory layout, AdamW and an EMA
update through `EMAModel`: its unconditional example's loop. Ours is our own step on the same
batch. The variants take turns, round by round, so that a change in the machine's clock hits all of
them; the table shows medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
import tyro
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from ddpm.data.images import MemoryImages
from ddpm.model import DataFacts, Ddpm
from ddpm.training.loop import TrainingStep
from ddpm.training.presets import get_preset
from ddpm.training.state import TrainingState


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch: int = 16
    """Images a step."""
    rounds: int = 3
    """How often each variant is timed."""


def peer(batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """(training step, inference call) of diffusers."""
    network = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        attention_head_dim=None,
        norm_eps=1e-6,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=0.1,
    )
    scheduler = DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    ema = EMAModel(network.parameters(), decay=0.9999)
    x = torch.rand(batch, 3, 32, 32) * 2 - 1

    def train() -> None:
        network.train()
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (batch,))
        loss = F.mse_loss(network(scheduler.add_noise(x, noise, t), t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        loss.item()

    def infer() -> None:
        network.eval()
        with torch.no_grad():
            network(x, torch.zeros(batch, dtype=torch.long))

    return train, infer


def ours(batch: int, precision: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """(training step, inference call) of this project."""
    config = get_preset("cifar10")
    training = replace(config.training, batch_size=batch, precision=precision)  # type: ignore[arg-type]
    config = replace(config, training=training)
    source = MemoryImages(torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8))
    state = TrainingState(config, DataFacts(source.shape, 256, "noise"), torch.device("cpu"))
    step = TrainingStep(state)
    model = Ddpm(config, state.facts, state.ema.network)
    x, t = torch.randn(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.long)
    return lambda: step(source.images).item(), lambda: model.denoiser(x, t)


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main(options: Options) -> None:
    """Time every variant in turn and print the table."""
    variants = {
        "diffusers, float32": peer(options.batch),
        "ddpm, fp32, channels last": ours(options.batch, "fp32"),
        "ddpm, bf16, channels last": ours(options.batch, "bf16"),
    }
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(options.rounds + 1):  # the first round warms up and is not counted
        for name, calls in variants.items():
            for kind, call in enumerate(calls):
                spent = seconds(call)
                if turn > 0:
                    times.setdefault((name, kind), []).append(spent)
    median = {key: statistics.median(values) for key, values in times.items()}
    base = next(iter(variants))
    print(f"batch {options.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| variant | train step, s | ratio | inference, s | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for name in variants:
        train, infer = median[name, 0], median[name, 1]
        print(
            f"| {name} | {train:.2f} | {median[base, 0] / train:.2f} "
            f"| {infer:.2f} | {median[base, 1] / infer:.2f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
