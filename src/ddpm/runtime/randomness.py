"""Random numbers as a pure function of (seed, purpose, index, step): never of history.

A counter-based generator (Philox4x32-10, Salmon et al. 2011) written in tensor arithmetic. The
i-th image of a seed therefore gets the same noise whatever the batch size, the device, the number
of processes or the step at which a run was resumed.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def derive_key(seed: int, purpose: str, *numbers: int) -> int:
    """A 64-bit key that differs for every seed, purpose and sequence of numbers."""
    text = "/".join([purpose, str(seed), *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def philox(counters: list[Tensor], key: int) -> list[Tensor]:
    """Philox4x32 with 10 rounds.

    Args:
        counters: four int64 tensors of one shape, holding 32-bit values.
        key: 64 bits.

    Returns:
        Four int64 tensors of that shape, each uniform on 0..2^32-1.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key & MASK, key >> 32 & MASK
    for _ in range(10):
        # int64 products wrap modulo 2^64, so both 32-bit halves of the unsigned product survive.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> 32 & MASK) ^ c1 ^ k0,
            p1 & MASK,
            (p0 >> 32 & MASK) ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return [c0, c1, c2, c3]


@dataclass(frozen=True)
class Randomness:
    """The random numbers of one seed and one purpose.

    Args:
        seed: what the user chose.
        purpose: what the numbers are for; other purposes get unrelated numbers.
    """

    seed: int
    purpose: str

    def _bits(self, index: Tensor, step: int, count: int) -> Int[Tensor, "b count"]:
        """`count` 32-bit integers for every index: [b, count]."""
        blocks = -(-count // 4)
        position = torch.arange(blocks, device=index.device).expand(len(index), blocks)
        index = index.reshape(-1, 1).expand_as(position)
        counters = [
            position,
            torch.full_like(position, step & MASK),
            index & MASK,
            index >> 32 & MASK,
        ]
        return torch.cat(philox(counters, derive_key(self.seed, self.purpose)), dim=1)[:, :count]

    def uniform(self, index: Int[Tensor, " b"], step: int = 0) -> Float[Tensor, " b"]:
        """One number in (0, 1] for every index; float32 rounds the very largest up to 1."""
        return ((self._bits(index, step, 1)[:, 0] >> 8) + 0.5) * 2.0**-24

    def integers(self, index: Int[Tensor, " b"], high: int, step: int = 0) -> Int[Tensor, " b"]:
        """One integer in 0..high-1 for every index; high at most 2^31."""
        return self._bits(index, step, 1)[:, 0] * high >> 32

    def normal(
        self, index: Int[Tensor, " b"], shape: tuple[int, ...], step: int = 0
    ) -> Float[Tensor, "b ..."]:
        """Standard normal float32 numbers, [b, *shape], by the Box-Muller transform."""
        count = math.prod(shape)
        half = -(-count // 2)
        bits = self._bits(index, step, 2 * half)
        unit = ((bits >> 8) + 0.5) * 2.0**-24
        radius = (-2 * unit[:, :half].log()).sqrt()
        angle = 2 * math.pi * unit[:, half:]
        normals = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return normals[:, :count].reshape(len(index), *shape).float()

    def permutation(self, n: int, step: int = 0) -> Int[Tensor, " n"]:
        """A random order of 0..n-1, on the CPU."""
        generator = torch.Generator().manual_seed(derive_key(self.seed, self.purpose, step))
        return torch.randperm(n, generator=generator)
