"""A route: the timesteps that a diffusion path visits, and what each step should take.

Both sides must agree on every number of it to the last bit, so that it holds integers only: those
that a model keeps (`codec.model`), or those that the header of a file gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.errors import DdpmError, check

MAX_STEPS = 255
FINE = 16  # prices are sixteenths of a bit
DEAREST = 1 << 30  # that a step of a tile may be


@dataclass(frozen=True)
class Route:
    """Which way the image comes.

    Args:
        timesteps: falling, from T - 1 to where the last stage takes over; at most 255.
        prices: of every step but the last, which is no step of the path, what it should take for a
            tile, in sixteenths of a bit.

    Raises:
        DdpmError: numbers that are no route.
    """

    timesteps: tuple[int, ...]
    prices: tuple[int, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in itertools.pairwise(self.timesteps))
        check(
            1 <= len(self.timesteps) <= MAX_STEPS
            and falling
            and self.timesteps[-1] >= 0
            and len(self.prices) == len(self.timesteps) - 1
            and all(0 <= price < DEAREST for price in self.prices),
            "a route needs falling timesteps and a price for each step between two of them",
        )

    @property
    def steps(self) -> int:
        """K, the calls of the network that an image takes."""
        return len(self.timesteps)

    @property
    def last(self) -> int:
        """The timestep at which the last stage takes over."""
        return self.timesteps[-1]

    def expected_bits(self, step: int, tiles: int) -> int:
        """What the path of a step, from 0, should take for so many tiles."""
        return self.prices[step] * tiles // FINE

    def numbers(self) -> list[int]:
        """As a header has it: T - 1, then each fall and its price."""
        out = [self.timesteps[0]]
        falls = itertools.pairwise(self.timesteps)
        for (a, b), price in zip(falls, self.prices, strict=True):
            out += [a - b, price]
        return out

    @staticmethod
    def of_numbers(numbers: Sequence[int]) -> Route:
        """The inverse of `numbers`.

        Raises:
            DdpmError: they are those of no route.
        """
        timesteps = itertools.accumulate([numbers[0], *(-fall for fall in numbers[1::2])])
        try:
            return Route(tuple(timesteps), tuple(numbers[2::2]))
        except DdpmError as error:
            raise DdpmError("the header of the file is damaged; fetch it again") from error
