"""Training speed of the CIFAR-10 network against the peers, as ratios in one run.

    python benchmarks/train.py [--batch 16] [--rounds 5] [--device cpu] [--compile]
    pip install --no-deps denoising-diffusion-pytorch ema-pytorch einops pytorch-fid  # for its row

One whole step each: data already there, noise, forward, backward, clipping, Adam, moving average;
the peers' are the steps of their own training loops (see `peers.py`). The variants take turns,
round by round, so that a change in the machine's clock hits all of them; the table shows medians.
Kept for backward are the activations that autograd saved, each storage once, without weights; peak
memory is what the device had allocated during a step (CUDA only).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import tyro
from peers import Peer, diffusers_peer, lucidrains_peer

from ddpm import get_preset
from ddpm.data.images import MemoryImages
from ddpm.runtime.device import Precision
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep
from ddpm.training.throughput import peak_flops, training_flops


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch: int = 16
    """Images a step."""
    rounds: int = 5
    """How often each variant is timed."""
    device: str = "cpu"
    """cpu or cuda."""
    compile: bool = False
    """Time compiled variants too (minutes of compiling on a CPU)."""


def ours(batch: int, device: torch.device, precision: Precision, compiled: bool) -> Peer:
    """This project's step and network call."""
    config = get_preset("cifar10")
    config = replace(
        config,
        training=replace(config.training, batch_size=batch, precision=precision, compile=compiled),
    )
    source = MemoryImages(torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)).to(device)
    state = TrainingState(config, source.format, device)
    step = TrainingStep(state)
    x = torch.randn(batch, 3, 32, 32, device=device)
    t = torch.zeros(batch, dtype=torch.long, device=device)
    call = state.model.denoiser()
    return Peer(lambda: step(source.images), lambda: call(x, t), state.network)


def variants(options: Options) -> dict[str, Peer]:
    """Every row of the table."""
    batch, device = options.batch, torch.device(options.device)
    plain = {"bf16": False, "channels_last": False, "compiled": False}
    rows = {
        "diffusers, as it comes (fp32)": diffusers_peer(batch, device, **plain),
        "diffusers, bf16, channels last": diffusers_peer(
            batch, device, bf16=True, channels_last=True, compiled=False
        ),
        "ddpm, fp32": ours(batch, device, "fp32", False),
        "ddpm, bf16": ours(batch, device, "bf16", False),
    }
    try:
        rows["denoising-diffusion-pytorch"] = lucidrains_peer(batch, device)
    except ImportError as error:
        print(f"denoising-diffusion-pytorch is left out: {error}")
    if options.compile:
        rows["diffusers, bf16, channels last, compiled"] = diffusers_peer(
            batch, device, bf16=True, channels_last=True, compiled=True
        )
        rows["ddpm, bf16, compiled"] = ours(batch, device, "bf16", True)
    return rows


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with what it left running on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def kept_for_backward(peer: Peer) -> int:
    """Bytes of activations that autograd saved in a step; of a compiled one it tells nothing."""
    weights = {p.untyped_storage().data_ptr() for p in peer.network.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors live, so no address comes twice

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes(), tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        peer.step()
    return sum(size for size, _ in kept.values())


def main(options: Options) -> None:
    """Time every variant in turn and print the table."""
    device = torch.device(options.device)
    rows, memory = variants(options), {}
    for name, peer in rows.items():  # warms up: memory pools, compilers
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        peer.step()
        peer.step()
        if device.type == "cuda":
            memory[name] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.rounds):
        for name, peer in rows.items():
            times[name].append(timed(peer.step, device))
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median[next(iter(rows))]
    network = get_preset("cifar10").build_network((3, 32, 32))
    parameters = sum(p.numel() for p in network.parameters())
    work, peak = training_flops(network, (3, 32, 32)), peak_flops(device, "bf16")
    print(
        f"{device}, batch {options.batch}, {options.rounds} rounds, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}; {work / 1e9:.1f} GFLOP an image of the 35.7M network"
    )
    print(
        "| variant | parameters | s a step | images/s | ratio | TFLOP/s | MFU "
        "| kept for backward, MiB/image | peak memory |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, peer in rows.items():
        rate = options.batch / median[name]
        same = peer.parameters == parameters
        flops = rate * work / 1e12 if same else None
        kept = ""
        if "compiled" not in name:
            kept = f"{kept_for_backward(peer) / options.batch / 2**20:.1f}"
        share = f"{flops * 1e12 / peak:.0%}" if peak and flops and "bf16" in name else ""
        print(
            f"| {name} | {peer.parameters / 1e6:.1f}M | {median[name]:.3f} | {rate:.2f} "
            f"| {base / median[name]:.2f} | {'' if flops is None else f'{flops:.3f}'} | {share} "
            f"| {kept} | {memory.get(name, '')} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
