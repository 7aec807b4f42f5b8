"""What moves the weights: Adam alone (the paper), or Muon and Adam; as a checkpoint keeps it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddpm.config import TrainingConfig
from ddpm.networks.sharding import full_tensor, shard_like
from ddpm.runs.checkpoint import Tensors
from ddpm.training.muon import Muon

ADAM = ("exp_avg", "exp_avg_sq")
MUON = ("momentum",)


def inner_matrices(network: nn.Module, channels: int, outputs: int) -> set[str]:
    """Names of the weights that Muon can move: of dense layers and of convolutions that neither
    see the image nor make one.

    Args:
        network: any.
        channels: of the image.
        outputs: of the network.
    """
    found = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            edge = module.in_channels == channels or module.out_channels == outputs
        elif isinstance(module, nn.Linear):
            edge = False
        else:
            continue
        if not edge:
            found.add(f"{name}.weight")
    return found & {name for name, weight in network.named_parameters() if weight.requires_grad}


class Optimizers:
    """Everything that `TrainingConfig.optimizer` stands for, as one.

    Args:
        network: whose weights are moved, sharded or not.
        training: which optimiser.
        channels, outputs: of the image and of the network; see `inner_matrices`.
    """

    def __init__(
        self, network: nn.Module, training: TrainingConfig, channels: int, outputs: int
    ) -> None:
        self.names = {weight: name for name, weight in network.named_parameters()}
        wanted = training.optimizer == "muon"
        matrices = inner_matrices(network, channels, outputs) if wanted else set()
        rest = [weight for weight, name in self.names.items() if name not in matrices]
        inner = [weight for weight, name in self.names.items() if name in matrices]
        self.parts: list[tuple[torch.optim.Optimizer, tuple[str, ...]]] = []
        if rest:
            adam = torch.optim.Adam(rest, lr=training.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
            self.parts.append((adam, ADAM))
        if inner:
            self.parts.append((Muon(inner, training.lr), MUON))

    def __str__(self) -> str:
        """What each holds."""
        said = []
        for optimizer, _ in self.parts:
            held = optimizer.param_groups[0]["params"]
            numbers = sum(weight.numel() for weight in held)
            said.append(f"{type(optimizer).__name__} {len(held)} tensors ({numbers:,} numbers)")
        return ", ".join(reversed(said))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer, _ in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Move all weights, at this learning rate."""
        for optimizer, _ in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def tensors(self) -> Tensors:
        """What decides the next step, whole: `exp_avg.NAME`, `exp_avg_sq.NAME`, `momentum.NAME`."""
        return {
            f"{moment}.{self.names[weight]}": full_tensor(
                optimizer.state[weight].get(moment, torch.zeros_like(weight))
            )
            for optimizer, moments in self.parts
            for weight in optimizer.param_groups[0]["params"]
            for moment in moments
        }

    def restore(self, tensors: Tensors, step: int) -> None:
        """The inverse of `tensors`, after `step` steps.

        Raises:
            KeyError: some are missing.
        """
        for optimizer, moments in self.parts:
            for weight in optimizer.param_groups[0]["params"]:
                name = self.names[weight]
                kept: dict[str, Any] = {
                    m: _laid_out(tensors[f"{m}.{name}"], weight) for m in moments
                }
                if moments is ADAM:
                    kept["step"] = torch.tensor(float(step))
                optimizer.state[weight] = kept


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """In float32 and laid out like the weight: the fused Adam walks through memory."""
    return torch.empty_like(like.detach()).copy_(shard_like(tensor, like))
