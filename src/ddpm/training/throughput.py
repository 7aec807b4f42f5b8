"""How fast a run is: its arithmetic a second, and which share of the device's that is.

Model-FLOPs utilisation as in PaLM (Chowdhery et al. 2022): only the arithmetic that the network
needs counts, three forward passes a training step, whatever else the machine computes.
"""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm.config import Config
from ddpm.data.images import Shape
from ddpm.runtime import parallel
from ddpm.runtime.device import resolve_precision
from ddpm.training.state import TrainingState

log = logging.getLogger("ddpm")
PEAKS = {  # by a part of the device's name: dense bf16 FLOP/s, from the makers' data sheets
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "L4": 121e12,
}
SHARES = {"bf16": 1.0, "tf32": 0.5}  # of those, that a precision can reach


def outline(config: Config, shape: Shape) -> nn.Module:
    """The network of a configuration without numbers, for what can be counted without them.

    Raises:
        RuntimeError: it is somebody's own and looks at its numbers while it is built.
        DdpmError: the settings do not fit together or to the images.
    """
    with torch.device("meta"):
        return config.build_network(shape)


def without_class(network: nn.Module, config: Config) -> nn.Module:
    """A network to be called with x and t alone: one that knows classes is told of none."""
    return _OfNoClass(network, config.classes) if config.classes else network


def forward_flops(network: nn.Module, shape: Shape) -> int:
    """Floating-point operations of one network call on one image, a multiplication-addition two."""
    empty = copy.deepcopy(network).to("meta")  # computes nothing and needs no memory
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(
            torch.zeros(1, *shape, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")
        )
    return counter.get_total_flops()


def training_flops(network: nn.Module, shape: Shape) -> int:
    """Of one image of a training step: a pass forward, and one backward, which costs twice that."""
    return 3 * forward_flops(network, shape)


class _OfNoClass(nn.Module):
    """A network that knows classes as it is called without one."""

    def __init__(self, network: nn.Module, null: int) -> None:
        super().__init__()
        self.network, self.null = network, null

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.network(x, t, torch.full_like(t, self.null))
        return found


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device could do in bf16 or TF32; None where that is not known or not used."""
    if device.type != "cuda" or precision not in SHARES:
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    return None if peak is None else peak * SHARES[precision]


def with_prefix(value: float) -> str:
    """Three digits and a prefix: 12.3 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


class Throughput:
    """Turns images a second of a run into arithmetic, and into the share of what is possible.

    A network whose arithmetic cannot be counted (it cannot run without numbers) has a rate only.

    Args:
        state: the run.
    """

    def __init__(self, state: TrainingState) -> None:
        config, processes = state.config, parallel.size()
        self.per_image: int | None = None
        try:
            shape = state.format.shape
            network = without_class(outline(config, shape), config)
            self.per_image = training_flops(network, shape)
        except Exception as error:  # it is somebody's own network, which may do anything
            log.warning("the network's arithmetic cannot be counted: %s", str(error).split("\n")[0])
        asked = config.training.precision
        precision = state.precision or resolve_precision(asked, state.device)
        peak = peak_flops(state.device, precision)
        self.peak = None if peak is None else peak * processes

    def figures(self, rate: float) -> dict[str, float]:
        """What the log gets for `rate` images a second over all processes."""
        figures = {"images_per_second": rate}
        if self.per_image is not None:
            flops = rate * self.per_image
            figures["teraflops"] = flops / 1e12
            if self.peak is not None:
                figures["mfu"] = flops / self.peak
        return figures

    def note(self, rate: float) -> str:
        """The same for the progress bar."""
        figures = self.figures(rate)
        flops = 1e12 * figures.get("teraflops", 0.0)
        arithmetic = f"  {with_prefix(flops)}FLOP/s" if flops else ""
        mfu = f"  MFU {figures['mfu']:.0%}" if "mfu" in figures else ""
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{speed} images/s{arithmetic}{mfu}"
