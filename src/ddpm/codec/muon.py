"""Muon (Jordan et al. 2024) for the last stage's few matrices: momentum of nearly equal singular
values.

The steps are those of `ddpm.training.muon`, without sharded weights and in bfloat16 where the CPU
multiplies it; that room lies above this one. For this network they are worth three times as many
steps of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic iteration
ITERATIONS = 5
RMS = 0.2  # of the elements of a step, about, in units of the learning rate (Liu et al. 2025)


def orthogonalised(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A matrix with the same singular vectors and singular values between about 0.7 and 1.2.

    X <- a X + (b A + c A^2) X with A = X X^T, from X of Frobenius norm 1.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(dtype)
    x = x / x.norm().clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


class Muon:
    """Muon for matrices.

    Args:
        weights: [outputs, inputs] each.
        dtype: in which they are orthogonalised.
    """

    def __init__(self, weights: Iterable[Tensor], dtype: torch.dtype) -> None:
        self.weights, self.dtype = list(weights), dtype
        self.momenta = [torch.zeros_like(weight, requires_grad=False) for weight in self.weights]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every weight along its gradient."""
        for weight, momentum in zip(self.weights, self.momenta, strict=True):
            assert weight.grad is not None
            momentum.lerp_(weight.grad, 1 - MOMENTUM)
            direction = weight.grad.lerp(momentum, MOMENTUM)  # as by Nesterov
            size = lr * RMS * math.sqrt(max(weight.shape))
            weight.sub_(orthogonalised(direction, self.dtype), alpha=size)
