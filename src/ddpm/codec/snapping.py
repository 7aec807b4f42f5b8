"""A predicted x_0 as integers that another machine, whose last digits differ, finds as well.

All of it lives on the *byte scale*: x in [-1, 1] is b = 127.5 (x + 1) in 0..255, whatever the
number of grey levels. b is rounded to the middle of its cell; a number that lies within `margin` of
a cell's border might round otherwise elsewhere. So the sender shifts the cells of each block of
numbers by the first of `TRIES` offsets that leaves no number so close to a border, and says which.
With blocks of B numbers spread evenly a try succeeds with p = (1 - 2 margin / cell)^B, and the
number of tries, which is geometric, costs about H(p) / B bits for each number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.errors import check

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNIT = 8  # of the integers that a byte is divided into
FINE = 64  # of the offsets
TRIES = 64  # that are made at most
MARGIN = 0.01  # of a byte: how far another machine's numbers may be off


@dataclass(frozen=True)
class Grid:
    """Cells that numbers on the byte scale are rounded to.

    Args:
        cell: width of a cell in bytes, 1..16.
        block: numbers that share an offset, at least 1.
    """

    cell: int = 4
    block: int = 256

    def __post_init__(self) -> None:
        check(
            1 <= self.cell <= 16 and 1 <= self.block <= 1 << 16,
            f"cells must be 1..16 bytes wide and blocks hold 1..65536 numbers, got {self}",
        )

    @property
    def bound(self) -> int:
        """No integer of `rounded` is larger, nor smaller than 255 UNIT - bound."""
        return UNIT * (255 + self.cell)

    @property
    def offsets(self) -> Ints:
        """[TRIES], in 1 / FINE of a byte, spread over a cell ever more densely; not from 0, since 0
        and 255 are where clipped numbers lie.
        """
        places = FINE * self.cell
        steps = np.arange(TRIES, dtype=np.int64) * (round(0.618 * places) | 1)
        return (steps + places // 2) % places

    def blocks(self, count: int) -> int:
        """How many blocks `count` numbers fill."""
        return -(-count // self.block)

    def choose(self, xstart: Floats, margin: float = MARGIN) -> tuple[Ints, Floats]:
        """The sender's part: an offset for each block.

        Args:
            xstart: [n], on [-1, 1]; what lies outside is moved to the ends.
            margin: in bytes, that is to be kept to every border.

        Returns:
            Numbers of the offsets, [blocks], and the margins in bytes that they keep. A block with
            a smaller one than was asked for had no better offset among all `TRIES`.
        """
        count, width = self.blocks(len(xstart)), FINE * self.cell
        flat = np.full(count * self.block, np.nan)
        flat[: len(xstart)] = to_bytes(xstart) * FINE
        places = flat.reshape(count, self.block)
        chosen, kept = np.zeros(count, dtype=np.int64), np.full(count, -1.0)
        left = np.arange(count)
        for number, offset in enumerate(self.offsets):
            inside = np.mod(places[left] - offset, width)
            found = np.fmin(inside, width - inside)
            margins = np.fmin.reduce(found, axis=1, initial=width) / FINE
            better = margins > kept[left]
            chosen[left[better]], kept[left[better]] = number, margins[better]
            left = left[kept[left] < margin]
            if not len(left):
                break
        return chosen, kept

    def rounded(self, xstart: Floats, tries: Ints) -> Ints:
        """Both sides' part: the middle of each number's cell.

        Args:
            xstart: [n], on [-1, 1].
            tries: of each block, as `choose` gives them.

        Returns:
            [n], in 1 / UNIT of a byte.
        """
        offsets = np.repeat(self.offsets[tries], self.block)[: len(xstart)]
        width = FINE * self.cell
        cells = np.floor((to_bytes(xstart) * FINE - offsets) / width).astype(np.int64)
        return (cells * width + offsets + width // 2) // (FINE // UNIT)

    def write(self, tries: Ints, count: int, out: BitWriter) -> int:
        """Write the numbers of the offsets of `count` numbers; returns how many bits they took.

        It is a Rice code: first the lowest bits of each, then the rest of all in unary: so many
        ones, and a zero.
        """
        low = self._low_bits(count)
        out.integers(tries & (1 << low) - 1, low)
        ones = tries >> low
        bits = np.ones(int(ones.sum()) + len(ones), dtype=np.int64)
        bits[np.cumsum(ones + 1) - 1] = 0
        out.integers(bits, np.ones_like(bits))
        return int(low.sum()) + len(bits)

    def read(self, count: int, bits: BitReader) -> Ints:
        """The inverse of `write`.

        Raises:
            EndOfData: they are not all there.
            DdpmError: no sender writes such numbers.
        """
        low = self._low_bits(count)
        lowest = bits.integers(low)
        ends = np.flatnonzero(bits.bits[bits.position :] == 0)[: len(low)]
        if len(ends) < len(low):
            raise EndOfData
        bits.position += int(ends[-1]) + 1 if len(ends) else 0
        tries = np.diff(ends, prepend=-1) - 1 << low | lowest
        check(
            not len(tries) or int(tries.max()) < TRIES,
            "the payload of the file is damaged; fetch it again",
        )
        return tries.astype(np.int64)

    def _low_bits(self, count: int) -> Ints:
        """[blocks], how many bits of each number are raw: those of the best Rice code, nearly, for
        p = (1 - 2 MARGIN / cell)^length.
        """
        lengths = np.full(self.blocks(count), self.block)
        if count % self.block:
            lengths[-1] = count % self.block
        return ((lengths // self.cell - 16) // 32).clip(0, 5)


def to_bytes(xstart: Floats) -> Floats:
    """x in [-1, 1] on the byte scale, in float64; what lies outside is moved to the ends."""
    return np.clip((xstart.astype(np.float64) + 1) * 127.5, 0, 255)
