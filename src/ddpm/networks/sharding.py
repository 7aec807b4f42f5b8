"""How the processes hold the network: each has a whole copy (DDP) or a part of it (FSDP2).

Parts are asked for with `accelerate launch --use_fsdp`. They are for a network whose weights,
gradients, averages and moments together do not fit on a device: a block is put together while it
computes. Checkpoints hold whole tensors either way, and either way can go on from the other's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ddpm.networks.unet import Block, UNet
from ddpm.runtime import parallel


def in_parts() -> bool:
    """Whether every process holds only its part of each tensor."""
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return wanted and parallel.size() > 1


def place(network: UNet) -> None:
    """Leave this process its part of every weight, if parts are asked for."""
    if not in_parts():
        return
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 needs it
    mesh = init_device_mesh(next(network.parameters()).device.type, (parallel.size(),))
    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, put together on the CPU if it is in parts; every process must ask."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process holds of `like`; nothing is exchanged."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def averaging(network: UNet) -> nn.Module:
    """The network to train with: its gradients are means over all processes."""
    if parallel.size() == 1 or in_parts():  # parts average by themselves
        return network
    return DistributedDataParallel(network, gradient_as_bucket_view=True)


@contextmanager
def gradients_wait(network: nn.Module, wait: bool) -> Iterator[None]:
    """Inside, if `wait`, backward passes add up gradients without exchanging them."""
    if not wait or parallel.size() == 1:
        yield
    elif isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
    else:
        network.set_requires_gradient_sync(False)  # type: ignore[operator]
        yield
        network.set_requires_gradient_sync(True)  # type: ignore[operator]
