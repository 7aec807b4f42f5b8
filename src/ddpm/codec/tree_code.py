"""Channel simulation: sending a sample of q to someone who expects p, for about KL(q || p) bits.

In the whitened coordinates of p the receiver expects N(0, I) and the sender wants a vector of law
N(mu, diag(v)). Both own the same pseudo-random tree. Its branches split the dimensions between
them; a branch has up to 2^k children, and the codeword of a child is a row of one fixed table of
normal numbers, picked by a hash of the whole path and turned by signs. The sender keeps the
`beam` likeliest paths at every level (the M-algorithm) and sends the best one. With as many bits
as the KL it is distributed nearly as q is, since the best of 2^KL samples of p always is.

Everything the receiver does is integer arithmetic until one last exact multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from ddpm.runtime.randomness import derive_key, philox

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ROWS = 4096  # of the table: what 12 bits of a hash can pick
WIDTH = 16  # dimensions a row covers; a wider branch goes on at other rows
STRIDE = 1531  # from the row of one stretch of a wide branch to that of the next
GRID = 4096  # the table's numbers are multiples of 1 / GRID, so every machine has the same
BLOCK = 512  # branches scored by one matrix product
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # multipliers of splitmix64 (Steele et al. 2014)
MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def random_words(count: int, key: int) -> Ints:
    """`count` integers on 0..2^32-1, the same on every machine."""
    blocks = torch.arange(-(-count // 4))
    zero = torch.zeros_like(blocks)
    return torch.stack(philox([blocks, zero, zero, zero], key), 1).reshape(-1)[:count].numpy()


@cache
def codebook() -> Floats:
    """[ROWS, WIDTH] of normal numbers on a grid, each column of mean 0 and variance near 1."""
    words = random_words(ROWS * WIDTH, derive_key(0, "codebook"))
    normal = torch.special.ndtri((torch.from_numpy(words) + 0.5).double() / 2.0**32).numpy()
    table = (np.round(normal * GRID) / GRID).astype(np.float32).reshape(ROWS, WIDTH)
    table.setflags(write=False)
    return table


@dataclass(frozen=True)
class TreeCode:
    """How a tree branches and how hard the sender searches it.

    Args:
        branch_bits: k; a branch has 2^k children.
        beam: paths kept. With a beam of 1 this is the flat best of 2^k for each chunk alone.
    """

    branch_bits: int = 4
    beam: int = 1024

    def grow(self, d: int, bits: int, key: int) -> Tree:
        """The tree for d dimensions and that many bits in all.

        Args:
            d: dimensions.
            bits: how many a path takes.
            key: decides the tree; both sides must know it.
        """
        words = random_words(d, key)
        order = np.argsort(words >> 1, kind="stable")
        signs = np.where(words & 1, 1, -1).astype(np.float32)
        branches = max(1, -(-bits // self.branch_bits))
        chosen = np.full(branches, self.branch_bits)
        chosen[-1] = bits - self.branch_bits * (branches - 1)
        edges = np.cumsum(np.concatenate([[0], chosen])) * d // max(bits, 1)
        edges[-1] = d
        widest = int(np.diff(edges).max())
        stretches = max(1, -(-widest // WIDTH))
        position = edges[:-1, None] + np.arange(stretches * WIDTH)
        inside = position < edges[1:, None]
        dims = np.where(inside, order[np.minimum(position, d - 1)], d)
        root = np.uint64(derive_key(0, "tree", key))
        return Tree(dims.reshape(branches, stretches, WIDTH), signs, chosen, root, self.beam)


@dataclass(frozen=True)
class Tree:
    """Which dimensions each branch covers, and what a path through them stands for.

    Args:
        dims: [branches, stretches, WIDTH], indices of dimensions; d stands for none.
        signs: [d], +1 or -1.
        bits: [branches], how many bits each branch chooses by.
        root: the hash that every path starts from.
        beam: paths kept in a search.
    """

    dims: Ints
    signs: Floats
    bits: Ints
    root: np.uint64
    beam: int

    def search(self, mean: Floats, variance: Floats) -> Ints:
        """A path that looks like a sample of N(mean, variance).

        Args:
            mean, variance: [d], in the coordinates in which the receiver expects N(0, I). A
                dimension of mean 0 and variance 1 costs and decides nothing.

        Returns:
            [branches], the child chosen at each.
        """
        linear = np.append(self.signs * mean / variance, np.float32(0)).astype(np.float32)
        square = np.append(0.5 * (1 / variance - 1), np.float32(0)).astype(np.float32)
        states = np.array([self.root])
        scores = np.zeros(1, np.float32)
        history = []
        for begin in range(0, len(self.bits), BLOCK):
            gains = self._gains(slice(begin, begin + BLOCK), linear, square)
            for gain, k in zip(gains, self.bits[begin : begin + BLOCK], strict=True):
                children = step(states, int(k))
                total = (scores[:, None] + gain[pick(children)]).reshape(-1)
                kept = np.arange(len(total))
                if len(total) > self.beam:
                    kept = np.argpartition(total, len(total) - self.beam)[-self.beam :]
                history.append(kept.astype(np.min_scalar_type(len(total))))  # a copy: no view
                states, scores = children.reshape(-1)[kept], total[kept]
        path, at = [], int(scores.argmax())
        for kept, k in zip(reversed(history), reversed(self.bits), strict=True):
            at, child = divmod(int(kept[at]), 1 << int(k))
            path.append(child)
        return np.array(path[::-1], dtype=np.int64)

    def _gains(self, block: slice, linear: Floats, square: Floats) -> Floats:
        """[branches of the block, ROWS], how much each row of the table would add to a score."""
        book = codebook()
        both = np.concatenate([book, -(book**2)], axis=1)
        dims, rows = self.dims[block], np.arange(ROWS)
        weights = np.concatenate([linear[dims], square[dims]], axis=2)
        gains = np.zeros((len(dims), ROWS), np.float32)
        for stretch in range(dims.shape[1]):
            gains += (weights[:, stretch] @ both.T)[:, (rows + STRIDE * stretch) % ROWS]
        return gains

    def vector(self, path: Ints) -> Floats:
        """[d], what a path stands for; branches that are missing leave their mean, 0."""
        d = len(self.signs)
        state = np.array([self.root])
        picked = []
        for child, k in zip(path, self.bits, strict=False):
            state = step(state, int(k))[:, int(child)]
            picked.append(pick(state)[0])
        z = np.zeros(d + 1, np.float32)
        stretches = STRIDE * np.arange(self.dims.shape[1])
        rows = (np.array(picked, dtype=np.int64)[:, None] + stretches) % ROWS
        z[self.dims[: len(picked)]] = codebook()[rows]
        return z[:d] * self.signs


def step(states: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    """[n, 2^bits], the states of the children of each state."""
    x = (states ^ (states >> np.uint64(30))) * MIX[0]
    x = (x ^ (x >> np.uint64(27))) * MIX[1]
    x = x ^ (x >> np.uint64(31))
    odd = np.arange(1, 2 << bits, 2, dtype=np.uint64) * GOLDEN
    with np.errstate(over="ignore"):
        return x[:, None] * odd | np.uint64(1)


def pick(states: NDArray[np.uint64]) -> Ints:
    """The row that each state picks."""
    return (states >> np.uint64(52)).astype(np.int64)
