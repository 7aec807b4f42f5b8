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

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch

from ddpm.codec.beam import (
    ROWS,
    STRIDE,
    WIDTH,
    Book,
    Floats,
    Ints,
    States,
    Target,
    find,
    integer_book,
    integer_target,
)
from ddpm.runtime.randomness import derive_key, philox

GRID = 4096  # the table's numbers are multiples of 1 / GRID, so every machine has the same
MASK = 2**64 - 1


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


@cache
def book() -> Book:
    """The codebook as a search reads it."""
    return integer_book(codebook())


@dataclass(frozen=True)
class TreeCode:
    """How a tree branches and how hard the sender searches it.

    Args:
        branch_bits: k; a branch has 2^k children.
        beam: paths kept. With a beam of 1 this is the flat best of 2^k for each chunk alone.
        segment: bits after which a path begins anew at another root, so that several processors
            can search at once; None for never.
    """

    branch_bits: int = 4
    beam: int = 1024
    segment: int | None = None

    def grow(self, d: int, bits: int, key: int) -> Tree:
        """The tree for d dimensions and that many bits in all.

        Args:
            d: dimensions.
            bits: how many a path takes.
            key: decides the tree; both sides must know it.
        """
        words = random_words(d, key)
        order = np.sort(words >> 1 << 32 | np.arange(d)) & 0xFFFFFFFF
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
        count = min(max(1, round(bits / self.segment)), branches) if self.segment else 1
        starts = np.arange(count + 1) * branches // count
        roots = [derive_key(0, "tree", key, *[i] * (i > 0)) for i in range(count)]
        return Tree(
            dims.reshape(branches, stretches, WIDTH),
            signs,
            chosen,
            starts,
            np.array(roots, dtype=np.uint64),
            self.beam,
        )


@dataclass(frozen=True)
class Tree:
    """Which dimensions each branch covers, and what a path through them stands for.

    Args:
        dims: [branches, stretches, WIDTH], indices of dimensions; d stands for none.
        signs: [d], +1 or -1.
        bits: [branches], how many bits each branch chooses by.
        starts: [segments + 1], the first branch of each segment, and the end.
        roots: [segments], the hash that the path through each starts from.
        beam: paths kept in a search.
    """

    dims: Ints
    signs: Floats
    bits: Ints
    starts: Ints
    roots: States
    beam: int

    def search(self, mean: Floats, variance: Floats, threads: int | None = None) -> Ints:
        """A path that looks like a sample of N(mean, variance), the same on every machine.

        Args:
            mean, variance: [d], in the coordinates in which the receiver expects N(0, I). A
                dimension of mean 0 and variance 1 costs and decides nothing.
            threads: that search segments at once, PyTorch's number of them by default; they
                change nothing but the time.

        Returns:
            [branches], the child chosen at each.

        Raises:
            DdpmError: a mean or a variance is not finite, or a variance not positive.
        """
        found = integer_target(mean, variance, self.signs, self.dims, book().largest)
        path = np.zeros(len(self.bits), dtype=np.int64)
        search, segments = partial(self._search_segment, path, found), range(len(self.roots))
        if len(segments) == 1:
            search(0)
        else:
            with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
                list(pool.map(search, segments))
        return path

    def _search_segment(self, path: Ints, target: Target, segment: int) -> None:
        """Fill in the path through one segment."""
        part = slice(self.starts[segment], self.starts[segment + 1])
        bits = self.bits[part]
        widest = self.beam << int(bits.max())
        kept = np.empty((len(bits), self.beam), np.uint16 if widest <= 1 << 16 else np.uint32)
        with np.errstate(over="ignore"):  # where numba is told to let Python run it
            find(
                path[part], kept, self.dims[part], bits, self.roots[segment], *target, book().lines
            )

    def vector(self, path: Ints) -> Floats:
        """[d], what a path stands for; branches that are missing leave their mean, 0."""
        d = len(self.signs)
        rows = np.empty(len(path), dtype=np.int64)
        roots = dict(zip(self.starts.tolist(), self.roots.tolist(), strict=False))
        state = 0
        for branch, child in enumerate(path.tolist()):
            state = enter(roots.get(branch, state), child)
            rows[branch] = state >> 52
        z = np.zeros(d + 1, np.float32)
        stretches = STRIDE * np.arange(self.dims.shape[1])
        z[self.dims[: len(rows)]] = codebook()[(rows[:, None] + stretches) % ROWS]
        return z[:d] * self.signs


def enter(state: int, child: int) -> int:
    """The state of a child, from its parent's."""
    x = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return (x ^ x >> 31) * (2 * child + 1) * 0x9E3779B97F4A7C15 & MASK | 1
