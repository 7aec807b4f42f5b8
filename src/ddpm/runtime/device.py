"""Where and in which precision a network runs."""

from __future__ import annotations

import torch

from ddpm.networks.unet import UNet


def in_channels_last(network: UNet) -> UNet:
    """Lay the weights out as the convolutions like them best."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def resolve_precision(precision: str, device: torch.device) -> str:
    """What `auto` stands for on this device: bf16 where the hardware multiplies it faster."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "fp32"


def best_device() -> torch.device:
    """A CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
