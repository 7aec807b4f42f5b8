"""A range coder (Martin 1979): symbols of known frequencies in, bytes out, and back.

Everything is an int64. `low` and `width` describe an interval of [0, 2^56); a symbol narrows it to
its share, and when the width falls below 2^48 the highest byte is settled and shifted out. A sum
beyond 2^56 carries into bytes already written. All frequencies of a symbol sum to 2^24, so that a
unit of them is never less than 2^24 wide.

A decoder also knows how much the bytes that it has not got could add (`slack`): a symbol that they
could change is not decoded, and nothing after it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddpm.runtime.compiled import compiled

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

TOTAL_BITS = 24
TOTAL = 1 << TOTAL_BITS  # of the frequencies of a symbol
TOP = 1 << 56
BOTTOM = 1 << 48
CODE, WIDTH, SLACK, POSITION = range(4)  # of a decoder's state


def encode(low: Ints, high: Ints) -> bytes:
    """The code of symbols, as short as it can be where zeros may follow.

    Args:
        low, high: [n], each symbol's share of TOTAL: low is the sum of the frequencies before it.
    """
    out = np.zeros(3 * len(low) + 16, dtype=np.uint8)  # a symbol shifts out three bytes at most
    return out[: _encode(low, high, out)].tobytes().rstrip(b"\0")


@compiled
def _carry(out: Bytes, position: int) -> None:
    """Add one to the bytes before `position`."""
    position -= 1
    while out[position] == 255:
        out[position] = 0
        position -= 1
    out[position] += 1


@compiled
def _encode(lows: Ints, highs: Ints, out: Bytes) -> int:
    """Write the code of all symbols; returns its length."""
    low, width, position = 0, TOP, 0
    for i in range(len(lows)):
        unit = width >> TOTAL_BITS
        low += unit * lows[i]
        width = unit * (highs[i] - lows[i])
        if low >= TOP:
            _carry(out, position)
            low -= TOP
        while width < BOTTOM:
            out[position] = low >> 48
            position += 1
            low = (low & (BOTTOM - 1)) << 8
            width <<= 8
    for count in range(8):  # bytes that tell this interval from all others
        rest = (1 << (56 - 8 * count)) - 1
        value = (low + rest) & ~rest
        if value < low + width:
            break
    if value >= TOP:
        _carry(out, position)
        value -= TOP
    for i in range(count):
        out[position + i] = value >> (48 - 8 * i) & 255
    return position + count


def start(code: Bytes, complete: bool) -> Ints:
    """A decoder's state before the first symbol.

    Args:
        code: what there is of it.
        complete: zeros follow; else nobody knows what does.
    """
    state = np.zeros(4, dtype=np.int64)
    state[WIDTH] = 1
    _fill(state, code, complete, TOP)
    return state


@compiled
def _fill(state: Ints, code: Bytes, complete: bool, least: int) -> None:
    """Shift bytes in until the width is `least`."""
    while state[WIDTH] < least:
        state[WIDTH] <<= 8
        state[CODE] <<= 8
        state[SLACK] <<= 8
        if state[POSITION] < len(code):
            state[CODE] |= code[state[POSITION]]
            state[POSITION] += 1
        elif not complete:
            state[SLACK] |= 255


@compiled
def lowest(state: Ints) -> int:
    """Where in 0..TOTAL-1 the code lies, if zeros follow."""
    return min(state[CODE] // (state[WIDTH] >> TOTAL_BITS), TOTAL - 1)


@compiled
def highest(state: Ints) -> int:
    """Where in 0..TOTAL-1 the code lies, if it is continued by the highest bytes."""
    return min((state[CODE] + state[SLACK]) // (state[WIDTH] >> TOTAL_BITS), TOTAL - 1)


@compiled
def consume(state: Ints, low: int, high: int, code: Bytes, complete: bool) -> None:
    """Go on behind the symbol whose share is low..high."""
    unit = state[WIDTH] >> TOTAL_BITS
    state[WIDTH] = unit * (high - low)
    # What no encoder wrote can lie beyond the last share.
    state[CODE] = min(state[CODE] - unit * low, state[WIDTH] - 1)
    _fill(state, code, complete, BOTTOM)
