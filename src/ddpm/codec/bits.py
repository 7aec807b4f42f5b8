"""Bits to bytes and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddpm.errors import check

Bits = NDArray[np.uint8]


class BitWriter:
    """Collects bits, highest of a byte first."""

    def __init__(self) -> None:
        self.parts: list[Bits] = []

    def integers(self, values: NDArray[np.int64], widths: NDArray[np.int64]) -> None:
        """Each value in its own number of bits, highest first."""
        widest = int(widths.max(initial=0))
        shift = np.arange(widest - 1, -1, -1)
        bits = (values[:, None] >> shift & 1).astype(np.uint8)
        self.parts.append(bits[shift < widths[:, None]])

    def gamma(self, value: int) -> int:
        """Elias's gamma code of value + 1; returns how many bits it took."""
        width = (value + 1).bit_length()
        self.integers(np.array([0, value + 1]), np.array([width - 1, width]))
        return 2 * width - 1

    def signed_gamma(self, value: int) -> int:
        """The gamma code of an integer of either sign; returns how many bits it took."""
        return self.gamma(2 * value - 1 if value > 0 else -2 * value)

    def bytes(self) -> bytes:
        """All bits, padded to whole bytes with zeros."""
        return np.packbits(np.concatenate([np.zeros(0, np.uint8), *self.parts])).tobytes()


class EndOfData(Exception):
    """The payload ended: what came before it is all there is."""


class BitReader:
    """Reads what a BitWriter wrote; `EndOfData` where it was cut."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        self.position = 0

    def integers(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """One value for each width."""
        total = int(widths.sum())
        if self.position + total > len(self.bits):
            raise EndOfData
        values = np.zeros(len(widths), dtype=np.int64)
        starts = self.position + np.cumsum(widths) - widths
        for bit in range(int(widths.max(initial=0))):
            longer = widths > bit
            values[longer] = values[longer] << 1 | self.bits[starts[longer] + bit]
        self.position += total
        return values

    def gamma(self) -> int:
        """The inverse of `BitWriter.gamma`."""
        width = 1
        while self.integers(np.array([1]))[0] == 0:
            width += 1
            check(width < 32, "the payload of the file is damaged; fetch it again")
        rest = int(self.integers(np.array([width - 1]))[0]) if width > 1 else 0
        return (1 << width - 1 | rest) - 1

    def signed_gamma(self) -> int:
        """The inverse of `BitWriter.signed_gamma`."""
        value = self.gamma()
        return (value + 1) // 2 if value % 2 else -value // 2
