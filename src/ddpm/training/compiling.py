"""`torch.compile`, given up with a notice where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

log = logging.getLogger("ddpm")


def compiled(network: nn.Module) -> Callable[..., Tensor]:
    """`network` through the compiler from its first call on.

    The compiler meets the code of whoever installed it: a C++ compiler, Triton, a driver. Whatever
    it breaks on, the run goes on without it.
    """
    fast: Callable[..., Tensor] | None = torch.compile(network)

    def call(*inputs: Tensor) -> Tensor:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*inputs)
            except Exception as error:  # if it was not the compiler's, the next line raises it
                reason = str(error).strip().splitlines()[0]
                log.warning("torch.compile failed, continuing without it: %s", reason)
                fast = None
        return network(*inputs)

    return call
