"""The peers' networks and loops, as near to the paper's CIFAR-10 model as their options allow, and
ours; and how they are timed.

`diffusers`: `UNet2DModel` with the same layers (35.7M parameters) and the loop of its
unconditional example: AdamW, clipping, `EMAModel`, the loss read at every step.
`denoising-diffusion-pytorch`: `Unet` of width 128 and the same multipliers, full attention at 16x16
and in the middle as its default has it, no linear attention elsewhere can be chosen, so it stays;
and the step of its `Trainer`: Adam, clipping, its EMA. It needs no pictures here, so where
torchvision cannot be imported an empty stand-in takes its place.
"""

from __future__ import annotations

import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm import Config, Ddpm, ImageFormat, get_preset
from ddpm.config import UNetConfig
from ddpm.data.images import MemoryImages
from ddpm.runtime.device import Precision
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep


@dataclass(frozen=True)
class Size:
    """A network as both this project and `diffusers` build it.

    Args:
        side: of the images.
        channels: of each level.
        attention: the level at which attention follows every res-block.
        blocks: res-blocks a level.
        groups: of every normalisation.
    """

    side: int
    channels: tuple[int, ...]
    attention: int
    blocks: int
    groups: int

    @property
    def format(self) -> ImageFormat:
        """Of the images."""
        return ImageFormat(3, self.side, self.side)

    def config(self, batch: int, precision: Precision, compiled: bool = False) -> Config:
        """The CIFAR-10 preset with this network."""
        base, first = get_preset("cifar10"), self.channels[0]
        network = UNetConfig(
            ch=first,
            ch_mult=tuple(channels // first for channels in self.channels),
            num_res_blocks=self.blocks,
            attn_resolutions=(self.side >> self.attention,),
            norm_groups=self.groups,
        )
        training = replace(base.training, batch_size=batch, precision=precision, compile=compiled)
        return replace(base, network=network, training=training)


PAPER = Size(32, (128, 256, 256, 256), 1, 2, 32)  # 35.7M parameters
TINY = Size(8, (16, 16), 1, 1, 8)


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


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with what it left running on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> Iterator[tuple[str, float]]:
    """Seconds of every call, each once a round: a change in the clock hits all of them."""
    for _ in range(rounds):
        for name, call in calls.items():
            yield name, timed(call, device)


def medians(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of every call over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, spent in in_turns(calls, rounds, device):
        times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def batch_on(device: torch.device, batch: int, side: int = PAPER.side) -> Tensor:
    """Images in [-1, 1]."""
    return torch.rand(batch, 3, side, side, device=device) * 2 - 1


def our_peer(
    batch: int,
    device: torch.device,
    precision: Precision,
    compiled: bool = False,
    size: Size = PAPER,
) -> Peer:
    """This project's step and network call."""
    config, side = size.config(batch, precision, compiled), size.side
    pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    source = MemoryImages(pixels).to(device)
    state = TrainingState(config, source.format, device)
    step = TrainingStep(state)
    x, t = batch_on(device, batch, side), torch.zeros(batch, dtype=torch.long, device=device)
    call = state.model.denoiser()
    return Peer(lambda: step(source.images), lambda: call(x, t), state.network)


def our_model(
    device: torch.device, precision: Precision, compiled: bool = False, size: Size = PAPER
) -> Ddpm:
    """An untrained model: speed does not depend on the weights."""
    config = size.config(1, precision)
    network = config.build_network(size.format.shape).requires_grad_(False)
    model = Ddpm(config, size.format, network, precision=precision).to(device)
    if compiled:
        model.network = torch.compile(model.network)  # type: ignore[assignment]
    return model


def diffusers_network(size: Size, device: torch.device, channels_last: bool) -> nn.Module:
    """`UNet2DModel` of the same layers."""
    from diffusers import UNet2DModel

    levels = range(len(size.channels))
    kinds = ["Attn" if level == size.attention else "" for level in levels]
    network = UNet2DModel(
        sample_size=size.side,
        block_out_channels=size.channels,
        layers_per_block=size.blocks,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        downsample_padding=0,
        attention_head_dim=None,
        norm_num_groups=size.groups,
        norm_eps=1e-6,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=0.1,
    ).to(device)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def diffusers_peer(
    batch: int,
    device: torch.device,
    *,
    bf16: bool,
    channels_last: bool,
    compiled: bool,
    size: Size = PAPER,
) -> Peer:
    """`UNet2DModel`; bf16 is autocast, as its example does through accelerate."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    network = diffusers_network(size, device, channels_last)
    x = batch_on(device, batch, size.side)
    if channels_last:
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


def diffusers_sampling(
    batch: int,
    device: torch.device,
    calls: int,
    *,
    bf16: bool = False,
    channels_last: bool = False,
    compiled: bool = False,
    size: Size = PAPER,
) -> Callable[[], object]:
    """Its DDIM loop, as its pipeline has it."""
    from diffusers import DDIMScheduler

    network = diffusers_network(size, device, channels_last).eval()
    forward = torch.compile(network) if compiled else network
    scheduler = DDIMScheduler(num_train_timesteps=1000)

    def sample() -> Tensor:
        scheduler.set_timesteps(calls)
        x = torch.randn(batch, 3, size.side, size.side, device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for t in scheduler.timesteps:
                if channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                x = scheduler.step(forward(x, t).sample.float(), t, x).prev_sample
        return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    return sample


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
    diffusion = GaussianDiffusion(network, image_size=PAPER.side).to(device)
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
