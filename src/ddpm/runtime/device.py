"""Where and in which precision a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Precision = Literal["auto", "fp32", "bf16"]
Floats = Literal["fp32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)


def best_device() -> torch.device:
    """A CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_channels_last(network: Network) -> Network:
    """Lay the weights out as the convolutions like them best."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def resolve_precision(precision: Precision, device: torch.device) -> Floats:
    """A precision in which numbers come out that must not depend on a stopwatch.

    `auto` is bf16 on a GPU that multiplies it faster, and fp32 on a CPU. What is trained or drawn
    on a CPU may take less time in bf16: see `ddpm.runtime.probe`.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return precision


def in_precision(
    forward: Callable[[Tensor, Tensor], Tensor], precision: Floats
) -> Callable[[Tensor, Tensor], Tensor]:
    """A network's forward pass in that precision; what comes out is float32 and contiguous."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = forward(x, t)
        return output.float().contiguous()

    return call


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 as it is meant: without TF32 and autocast, whatever the program has chosen."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    cast = {device: torch.is_autocast_enabled(device) for device in ("cpu", "cuda")}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for device in cast:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device, enabled in cast.items():
            torch.set_autocast_enabled(device, enabled)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
