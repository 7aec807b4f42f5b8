"""Muon (Jordan et al. 2024): momentum whose singular values are all made about 1.

A matrix moves along the nearest semi-orthogonal matrix to its momentum, so that no direction of its
inputs is learned faster than another. A convolution is the matrix [out, in * height * width] of its
kernel. The step is scaled by 0.2 sqrt(longest side), which makes it as large as a step of Adam
(Liu et al. 2025), so that one learning rate serves both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ddpm.networks.sharding import shard_like

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic iteration
ITERATIONS = 5
RMS = 0.2  # of the elements of a step, about, in units of the learning rate


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [k, m, n] with singular values between about 0.7 and 1.2, by Newton-Schulz.

    X <- a X + (b A + c A^2) X with A = X X^T, from X of Frobenius norm 1. Every X is a polynomial
    of the first A times the first X, so that all but the first and the last product are of small
    square matrices: a kernel is nine times as long as it is high.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    identity = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    factor = identity.expand_as(gram)  # what x is multiplied by so far
    for _ in range(ITERATIONS):
        step = a * identity + b * gram + c * gram @ gram
        factor = step @ factor
        gram = step @ gram @ step
    x = factor @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for weights of at least two dimensions.

    Args:
        weights: matrices, or kernels [out, in, ...]; sharded ones are put together for a step.
        lr: learning rate.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every weight; those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                direction = self._direction(weight, weight.grad)
                if isinstance(direction, DTensor):
                    direction = direction.full_tensor()
                matrix = direction.reshape(len(direction), -1)
                alike[matrix.shape].append((weight, matrix))
            for shape, members in alike.items():
                steps = orthogonalised(torch.stack([matrix for _, matrix in members]))
                size = group["lr"] * RMS * math.sqrt(max(shape))
                for (weight, _), step in zip(members, steps, strict=True):
                    moved = step.reshape(weight.shape)
                    weight.sub_(shard_like(moved, weight), alpha=size)

    def _direction(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """The gradient and its running mean, mixed as by Nesterov."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)
