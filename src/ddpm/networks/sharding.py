"""How the processes hold a network: each has a whole copy (DDP) or a shard of it (FSDP2).

Shards are asked for with `accelerate launch --use_fsdp`. They are for a network whose weights,
gradients, averages and moments together do not fit on a device: a block is put together while it
computes. Checkpoints hold full tensors either way, and either way can go on from the other's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ddpm.runtime import parallel


def is_sharded() -> bool:
    """Whether every process holds only its shard of each tensor."""
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return wanted and parallel.size() > 1


def shard(network: nn.Module) -> None:
    """Leave this process its shard of every weight, if shards are asked for.

    A network may have a method `blocks()` that gives the modules which are put together one at a
    time; without it the whole network is put together at once.
    """
    if not is_sharded():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 needs it
    mesh = init_device_mesh(next(network.parameters()).device.type, (parallel.size(),))
    for block in network.blocks() if hasattr(network, "blocks") else ():  # type: ignore[operator]
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, put together on the CPU if it is sharded; every process must ask."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The shard of a full tensor that this process holds of `like`; nothing is exchanged."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def averaging(network: nn.Module) -> nn.Module:
    """The network to train with: its gradients are means over all processes."""
    if parallel.size() == 1 or is_sharded():  # shards average by themselves
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
