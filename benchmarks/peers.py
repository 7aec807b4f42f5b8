"""The peers' networks and loops, as near to the paper's CIFAR-10 model as their options allow.

`diffusers`: `UNet2DModel` with the same layers (35.7M parameters) and the loop of its
unconditional example: AdamW, clipping, `EMAModel`, the loss read at every step.
`denoising-diffusion-pytorch`: `Unet` of width 128 and the same multipliers, full attention at 16x16
and in the middle as its default has it, no linear attention elsewhere can be chosen, so it stays;
and the step of its `Trainer`: Adam, clipping, its EMA. It needs no pictures here, so where
torchvision cannot be imported an empty stand-in takes its place.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32


@dataclass(frozen=True)
class Peer:
    """Somebody's network at work on one batch.

    Args:
        step: one optimiser step.
        call: one network call without gradients.
        network: itself.
    """

    step: Callable[[], object]
    call: Callable[[], object]
    network: nn.Module

    @property
    def parameters(self) -> int:
        """How many numbers training sets."""
        return sum(p.numel() for p in self.network.parameters())


def batch_on(device: torch.device, batch: int) -> Tensor:
    """Images in [-1, 1]."""
    return torch.rand(batch, 3, SIDE, SIDE, device=device) * 2 - 1


def diffusers_peer(
    batch: int, device: torch.device, *, bf16: bool, channels_last: bool, compiled: bool
) -> Peer:
    """`UNet2DModel`; bf16 is autocast, as its example does through accelerate."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    network = UNet2DModel(
        sample_size=SIDE,
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
    ).to(device)
    x = batch_on(device, batch)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    scheduler = DDPMScheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    ema = EMAModel(network.parameters(), decay=0.9999)
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        network.train()
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (batch,), device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = F.mse_loss(forward(scheduler.add_noise(x, noise, t), t).sample.float(), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(network.parameters())
        loss.item()

    def call() -> None:
        network.eval()
        t = torch.zeros(batch, dtype=torch.long, device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            forward(x, t)

    return Peer(step, call, network)


def lucidrains_peer(batch: int, device: torch.device) -> Peer:
    """`denoising_diffusion_pytorch.Unet` in its own precision and layout."""
    stand_ins = _stand_ins_for_torchvision()
    sys.modules.update(stand_ins)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    for name in stand_ins:  # others ask whether torchvision is there, and it is not
        del sys.modules[name]
    network = Unet(
        dim=128,
        dim_mults=(1, 2, 2, 2),
        full_attn=(False, True, False, True),
        dropout=0.1,
    )
    diffusion = GaussianDiffusion(network, image_size=SIDE).to(device)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    ema = EMA(diffusion, beta=0.995, update_every=10).to(device)
    x = (batch_on(device, batch) + 1) / 2

    def step() -> None:
        network.train()
        loss = diffusion(x)
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
        loss.item()

    def call() -> None:
        network.eval()
        with torch.inference_mode():
            network(x, torch.zeros(batch, dtype=torch.long, device=device))

    return Peer(step, call, network)


def _stand_ins_for_torchvision() -> dict[str, types.ModuleType]:
    """Empty modules of its names; none where the real one can be imported."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        names = ("", ".transforms", ".utils", ".datasets", ".models")
        modules = {f"torchvision{name}": types.ModuleType(f"torchvision{name}") for name in names}
        for name, module in modules.items():
            module.__spec__ = ModuleSpec(name, None)
            if "." in name:
                setattr(modules["torchvision"], name.split(".")[1], module)
        return modules
    return {}
