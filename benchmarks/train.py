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

from dataclasses import dataclass

import torch
import tyro
from peers import Peer, diffusers_peer, lucidrains_peer, medians, our_peer

from ddpm import get_preset
from ddpm.training.cost import kept_for_backward
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


def variants(options: Options) -> dict[str, Peer]:
    """Every row of the table."""
    batch, device = options.batch, torch.device(options.device)
    plain = {"bf16": False, "channels_last": False, "compiled": False}
    rows = {
        "diffusers, as it comes (fp32)": diffusers_peer(batch, device, **plain),
        "diffusers, bf16, channels last": diffusers_peer(
            batch, device, bf16=True, channels_last=True, compiled=False
        ),
        "ddpm, fp32": our_peer(batch, device, "fp32", False),
        "ddpm, bf16": our_peer(batch, device, "bf16", False),
    }
    try:
        rows["denoising-diffusion-pytorch"] = lucidrains_peer(batch, device)
    except ImportError as error:
        print(f"denoising-diffusion-pytorch is left out: {error}")
    if options.compile:
        rows["diffusers, bf16, channels last, compiled"] = diffusers_peer(
            batch, device, bf16=True, channels_last=True, compiled=True
        )
        rows["ddpm, bf16, compiled"] = our_peer(batch, device, "bf16", True)
    return rows


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
    steps = {name: peer.step for name, peer in rows.items()}
    median = medians(steps, options.rounds, device)
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
            size = kept_for_backward(peer.step, peer.network)
            kept = f"{size / options.batch / 2**20:.1f}"
        share = f"{flops * 1e12 / peak:.0%}" if peak and flops and "bf16" in name else ""
        print(
            f"| {name} | {peer.parameters / 1e6:.1f}M | {median[name]:.3f} | {rate:.2f} "
            f"| {base / median[name]:.2f} | {'' if flops is None else f'{flops:.3f}'} | {share} "
            f"| {kept} | {memory.get(name, '')} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
