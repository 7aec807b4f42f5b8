"""What a sample of q costs to send: flat best-of-K of each chunk against the tree code.

    python benchmarks/channel_simulation.py [--seeds 4]

On made-up targets: mu ~ N(0, (1-v) I) in d dimensions, with v such that the KL is the one asked
for, at 1.08 bits sent for each bit of KL.

The flat code cuts the dimensions into chunks of 12 bits each and sends for each the number of the
best of 4,096 distinct rows of one fixed codebook. The dimensions are permuted and their signs
turned by the key of the step, and all chunks are scored by one matrix product. (A `TreeCode` of 12
bits and a beam of 1 is the same but draws its 4,096 children with replacement.)

"Sent" is path bits alone. "Delivered" is -d/2 log2(1 - rho^2)
with rho the correlation of z and mu, or log2 q(z) / p(z). Both are summed over seeds.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np
import torch
import tyro

from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import Floats, Ints, Tree, TreeCode
from ddpm.runtime.randomness import derive_key

CHUNK_BITS = 12
RATE = 1.08  # bits sent for each bit of KL
ROWS = 1 << CHUNK_BITS
BOOK_WIDTH = 256  # dimensions a row of the flat codebook covers; a wider chunk goes on at others
STRIDE = 1531  # from the row of one stretch of a wide chunk to that of the next


class Code(Protocol):
    """What the codec needs of a code."""

    def grow(self, d: int, bits: int, key: int) -> Tree: ...


@cache
def flat_codebook() -> Floats:
    """[ROWS, BOOK_WIDTH] of normal numbers."""
    generator = np.random.default_rng(derive_key(0, "flat codebook"))
    return generator.standard_normal((ROWS, BOOK_WIDTH), dtype=np.float32)


@dataclass(frozen=True)
class FlatCode:
    """Best of 2^12 candidates for each chunk alone, all candidates distinct."""

    def grow(self, d: int, bits: int, key: int) -> Tree:
        """Chunks as the branches of a tree, their dimensions in stretches of the codebook."""
        tree = TreeCode(CHUNK_BITS, beam=1).grow(d, bits, key)
        dims = tree.dims.reshape(len(tree.dims), -1)
        stretches = -(-dims.shape[1] // BOOK_WIDTH)
        missing = stretches * BOOK_WIDTH - dims.shape[1] if stretches > 1 else 0
        dims = np.pad(dims, ((0, 0), (0, missing)), constant_values=d)
        return FlatTree(
            dims.reshape(len(dims), stretches, -1),
            tree.signs,
            tree.bits,
            tree.starts,
            tree.roots,
            tree.beam,
        )


class FlatTree(Tree):
    """The chunks of one vector: every branch chooses for itself."""

    def search(self, mean: Floats, variance: Floats, threads: int | None = None) -> Ints:
        """[chunks], the best candidate of each."""
        linear = np.append(self.signs * mean / variance, np.float32(0)).astype(np.float32)
        square = np.append(0.5 * (1 / variance - 1), np.float32(0)).astype(np.float32)
        book = flat_codebook()[:, : self.dims.shape[2]]
        both = np.concatenate([book, -(book**2)], axis=1)
        scores = np.zeros((len(self.dims), ROWS), np.float32)
        for i in range(self.dims.shape[1]):
            weights = np.concatenate([linear[self.dims[:, i]], square[self.dims[:, i]]], axis=1)
            scores += np.roll(weights @ both.T, -STRIDE * i, axis=1)
        path = [row[: 1 << int(k)].argmax() for row, k in zip(scores, self.bits, strict=True)]
        return np.array(path, dtype=np.int64)

    def vector(self, path: Ints) -> Floats:
        """[d], what a path stands for."""
        d = len(self.signs)
        rows = (path[:, None] + STRIDE * np.arange(self.dims.shape[1])) % ROWS
        z = np.zeros(d + 1, np.float32)
        z[self.dims] = flat_codebook()[rows, : self.dims.shape[2]]
        return z[:d] * self.signs


CODES: dict[str, Code] = {
    "flat, best of 2^12": FlatCode(),
    "tree, k = 1, beam 1,024": TreeCode(1, 1024),
    "tree, k = 2, beam 1,024": TreeCode(2, 1024),
    "tree, k = 4, beam 1,024": TreeCode(4, 1024),
    "tree, k = 4, beam 4,096": TreeCode(4, 4096),
}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    seeds: int = 4
    """Made-up targets a cell."""
    dims: int = 3072
    """Their dimensions."""
    kl: tuple[int, ...] = (25, 50, 100, 200, 400)
    """Their KL, in bits."""


def by_correlation(z: Floats, mu: Floats) -> float:
    """Bits that a Gaussian channel of this correlation delivers."""
    return -0.5 * len(z) * math.log2(1 - np.corrcoef(z, mu)[0, 1] ** 2)


def made_up_row(code: Code, options: Options, kl: int) -> str:
    """Cells of one code at one KL."""
    d = options.dims
    v = 2 ** (-2 * kl / d)
    variance = np.full(d, v, np.float32)
    sent = received = likelier = residual = 0.0
    times = []
    for seed in range(options.seeds):
        generator = np.random.default_rng(derive_key(seed, "target", kl))
        mu = (math.sqrt(1 - v) * generator.standard_normal(d)).astype(np.float32)
        bits, key = round(RATE * kl), derive_key(seed, "made up", kl)
        begun = time.perf_counter()
        tree = code.grow(d, bits, key)
        path = tree.search(mu, variance)
        times.append(1000 * (time.perf_counter() - begun))
        z = tree.vector(path)
        sent += bits
        received += by_correlation(z, mu)
        likelier += delivered(z, mu, variance)
        residual += float(((z - mu) ** 2).mean()) / v / options.seeds
    spent = statistics.median(times)
    return f"{sent / received:.2f} | {sent / likelier:.2f} | {residual:.3f} | {spent:.0f}"


def made_up(options: Options) -> None:
    """The table of made-up targets."""
    print(f"d = {options.dims}, {options.seeds} seeds, {RATE} bits sent for each bit of KL")
    for code in CODES.values():  # makes the codebooks, which is not timed
        made_up_row(code, replace(options, seeds=1), options.kl[0])
    print("| KL, bits | code | sent / delivered by rho | by log2 q/p | residual / v | ms a step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kl in options.kl:
        for name, code in CODES.items():
            print(f"| {kl} | {name} | {made_up_row(code, options, kl)} |")
            sys.stdout.flush()


def main(options: Options) -> None:
    """Print both tables."""
    print(f"{torch.get_num_threads()} threads, numpy {np.__version__}")
    made_up(options)


if __name__ == "__main__":
    main(tyro.cli(Options))
