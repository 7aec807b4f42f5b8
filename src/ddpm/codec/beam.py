"""The search of a tree by its sender: the likeliest paths, level by level, in integers only.

Every operation is on integers, none of which can overflow, and of equal paths the first in order is
kept; so the same target gives the same path on every machine.

A child's gain is the sum over its branch's dimensions of l n - s n^2, with n its codeword, l the
target's mean / variance (times the sign) and s half of 1 / variance - 1: log q(z) / p(z) but for a
constant. Numbers and squares of the codebook count in units of 1 / UNITS; l and s in units of the
smallest power of two that leaves every stretch's gain below 2^STRETCH_BITS. Gains of whole branches
are below 2^BRANCH_BITS (+ 1 a stretch), for which all stretches are shifted alike. Scores are
counted from the best path's, 0, down to -2^LOWEST_BITS: what lies further back is put there. The
sum of a score and a gain is then above -2^30 - 2^29 - 2^18 and fits into 32 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddpm.errors import check
from ddpm.runtime.compiled import compiled

Ints = NDArray[np.int64]
Shorts = NDArray[np.int16]
Numbers = NDArray[np.int32]
States = NDArray[np.uint64]
Floats = NDArray[np.float32]

ROWS = 4096  # of the table: what 12 bits of a hash can pick
ROW_SHIFT = np.uint64(52)
WIDTH = 16  # dimensions a row covers; a wider branch goes on at other rows
STRIDE = 1531  # from the row of one stretch of a wide branch to that of the next
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # multipliers of splitmix64 (Steele et al. 2014)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
ONE = np.uint64(1)

UNITS = 256
WEIGHT_BITS = 26
STRETCH_BITS = 30
BRANCH_BITS = 29
LOWEST_BITS = 30
LINE = 2 * ROWS  # a line of the book has the table's column twice: any stretch begins within it
LANES = 4  # dimensions at once
USUAL_BITS = 4  # of a branch


class Book(NamedTuple):
    """The codebook as a search reads it.

    Args:
        lines: [WIDTH * 2 * LINE], for each column its numbers, then minus their squares.
        largest: [2], the largest number and the largest square.
    """

    lines: Shorts
    largest: Ints


class Target(NamedTuple):
    """What a search is for.

    Args:
        linear, square: int32 [d + 1], l and s of each dimension; the last is of none.
        shift: of the gains.
    """

    linear: Numbers
    square: Numbers
    shift: int


def integer_book(table: Floats) -> Book:
    """The codebook [ROWS, WIDTH] in integers."""
    exact = table.astype(np.float64).T
    both = np.stack([np.rint(UNITS * exact), -np.rint(UNITS * exact**2)], axis=1)
    lines = np.concatenate([both, both], axis=2).astype(np.int16).reshape(-1)
    return Book(lines, np.abs(both).max(axis=(0, 2)).astype(np.int64))


def integer_target(
    mean: Floats, variance: Floats, signs: Floats, dims: Ints, largest: Ints
) -> Target:
    """The target N(mean, variance) in integers.

    Args:
        mean, variance, signs: [d].
        dims: [branches, stretches, WIDTH], of each branch; d stands for none.
        largest: of the book.

    Raises:
        DdpmError: a mean or a variance is not finite, or a variance not positive.
    """
    fine = bool(np.isfinite(mean).all() and np.isfinite(variance).all() and (variance > 0).all())
    check(fine, "what a step should send is not finite; the network gives numbers that are not")
    inverse = 1 / variance.astype(np.float64)
    weights = np.zeros((2, len(signs) + 1))
    weights[0, :-1] = signs * mean.astype(np.float64) * inverse
    weights[1, :-1] = 0.5 * (inverse - 1)

    def bounds(integers: Ints) -> Ints:
        """[branches, stretches], above the size of any gain."""
        return (largest @ np.abs(integers))[dims].sum(axis=2)

    exponent = WEIGHT_BITS - int(np.frexp(np.abs(weights).max())[1])
    most = int(bounds(integers(weights, exponent)).max())
    exponent -= max(0, most.bit_length() - STRETCH_BITS)
    linear, square = integers(weights, exponent)
    most = int(bounds(integers(weights, exponent)).sum(axis=1).max())
    shift = max(0, most.bit_length() - BRANCH_BITS)
    return Target(linear.astype(np.int32), square.astype(np.int32), shift)


def integers(weights: NDArray[np.float64], exponent: int) -> Ints:
    """Weights in units of 2^-exponent."""
    return np.rint(np.ldexp(weights, exponent)).astype(np.int64)


@compiled
def mixed(state: np.uint64) -> np.uint64:
    """A state after splitmix64's xor-shifts and multiplications."""
    state = (state ^ (state >> SHIFT_1)) * MIX_1
    state = (state ^ (state >> SHIFT_2)) * MIX_2
    return state ^ (state >> SHIFT_3)


@compiled
def branch_gains(
    gains: Numbers,
    part: Numbers,
    dims: Ints,
    linear: Numbers,
    square: Numbers,
    lines: Shorts,
    shift: int,
) -> None:
    """Fill `gains`, [ROWS]: what each row of the table would add to a score at one branch.

    Args:
        part: room for as many.
        dims: [stretches, WIDTH] of the branch.
        linear, square, shift: see `Target`.
        lines: of the book.
    """
    gains[:] = 0
    for stretch in range(dims.shape[0]):
        offset = np.uint64(STRIDE * stretch % ROWS)
        empty = True
        for lane in range(0, WIDTH, LANES):
            l0, s0 = linear[dims[stretch, lane]], square[dims[stretch, lane]]
            l1, s1 = linear[dims[stretch, lane + 1]], square[dims[stretch, lane + 1]]
            l2, s2 = linear[dims[stretch, lane + 2]], square[dims[stretch, lane + 2]]
            l3, s3 = linear[dims[stretch, lane + 3]], square[dims[stretch, lane + 3]]
            if (l0 | s0 | l1 | s1 | l2 | s2 | l3 | s3) == 0:
                continue
            if empty:
                part[:] = 0
                empty = False
            first = np.uint64(2 * LINE * lane) + offset
            for row in range(np.uint64(ROWS)):
                at = first + row
                part[row] += (
                    l0 * lines[at]
                    + s0 * lines[at + np.uint64(LINE)]
                    + l1 * lines[at + np.uint64(2 * LINE)]
                    + s1 * lines[at + np.uint64(3 * LINE)]
                    + l2 * lines[at + np.uint64(4 * LINE)]
                    + s2 * lines[at + np.uint64(5 * LINE)]
                    + l3 * lines[at + np.uint64(6 * LINE)]
                    + s3 * lines[at + np.uint64(7 * LINE)]
                )
        if not empty:
            for row in range(ROWS):
                gains[row] += part[row] >> shift


@compiled
def children(
    totals: Numbers,
    mixes: States,
    states: States,
    scores: Numbers,
    gains: Numbers,
    paths: int,
    bits: int,
) -> None:
    """Fill `totals` with the scores of all children of all paths, `mixes` with the paths' mixed
    states."""
    for path in range(paths):
        mixes[path] = mixed(states[path]) * GOLDEN
    if bits == USUAL_BITS:  # a loop of known length is twice as fast
        for path in range(np.uint64(paths)):
            state, score = mixes[path], scores[path]
            twice, first = state + state, path << np.uint64(USUAL_BITS)
            for child in range(np.uint64(1 << USUAL_BITS)):
                totals[first + child] = score + gains[state >> ROW_SHIFT]
                state += twice
    else:
        for path in range(paths):
            state = mixes[path]
            for child in range(1 << bits):
                totals[(path << bits) + child] = scores[path] + gains[state >> ROW_SHIFT]
                state += mixes[path] + mixes[path]


@compiled
def least(totals: Numbers, count: int, beam: int) -> np.int64:
    """A number that the best `beam` of the first `count` totals reach, or a few less (a 32nd).

    If equal totals leave no such number it is the largest that more than `beam` reach.
    """
    low, high = np.int64(totals[0]), np.int64(totals[0])
    for i in range(count):
        low = min(low, np.int64(totals[i]))
        high = max(high, np.int64(totals[i]))
    high += 1
    while high - low > 1:
        middle = np.int32(low + (high - low) // 2)
        reach = np.int32(0)
        for i in range(count):
            reach = np.int32(reach + np.int32(totals[i] >= middle))
        if reach > beam:
            low = np.int64(middle)
        elif reach >= beam - beam // 32:
            return np.int64(middle)
        else:
            high = np.int64(middle)
    return low


@compiled
def keep(kept: Ints, totals: Numbers, count: int, beam: int) -> int:
    """Fill `kept` with the numbers of the best `beam` totals, in order, or of a few less; how many
    they are."""
    if count <= beam:
        for i in range(count):
            kept[i] = i
        return count
    enough = least(totals, count, beam)
    found = above = 0
    for i in range(count):
        kept[found] = i
        found += int(totals[i] >= enough)
    if found <= beam:
        return found
    for i in range(found):
        above += int(totals[kept[i]] > enough)
    spare, reached, found = beam - above, found, 0
    for i in range(reached):  # of those that only just reach it the first ones stay
        just = totals[kept[i]] == enough
        if not just or spare > 0:
            kept[found] = kept[i]
            found += 1
            spare -= int(just)
    return found


@compiled
def find(
    path: Ints,
    history: NDArray[np.uint32],
    dims: Ints,
    bits: Ints,
    root: np.uint64,
    linear: Numbers,
    square: Numbers,
    shift: int,
    lines: Shorts,
) -> None:
    """Fill `path`, [branches], with the child to take at each.

    Args:
        history: [branches, beam], room for the numbers of the paths kept.
        dims, bits, root: of the tree.
        linear, square, shift: see `Target`.
        lines: of the book.
    """
    branches, beam = history.shape
    most = beam << bits.max()
    totals, kept = np.empty(most, np.int32), np.empty(most + 1, np.int64)
    gains, part = np.empty(ROWS, np.int32), np.empty(ROWS, np.int32)
    states, mixes = np.empty(beam, np.uint64), np.empty(beam, np.uint64)
    scores = np.zeros(beam, np.int32)
    states[0] = root
    paths = 1
    for branch in range(branches):
        width = bits[branch]
        branch_gains(gains, part, dims[branch], linear, square, lines, shift)
        children(totals, mixes, states, scores, gains, paths, width)
        paths = keep(kept, totals, paths << width, beam)
        best = np.int64(totals[kept[0]])
        for i in range(paths):
            best = max(best, np.int64(totals[kept[i]]))
        for i in range(paths):
            number = kept[i]
            child = np.uint64(number & ((1 << width) - 1))
            states[i] = mixes[number >> width] * (child + child + ONE) | ONE
            scores[i] = max(totals[number] - best, -(1 << LOWEST_BITS))
            history[branch, i] = number
    at = 0
    while scores[at] < 0:
        at += 1
    for branch in range(branches - 1, -1, -1):
        number = np.int64(history[branch, at])
        path[branch] = number & ((1 << bits[branch]) - 1)
        at = number >> bits[branch]
