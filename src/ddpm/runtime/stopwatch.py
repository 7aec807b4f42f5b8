"""How long a network takes in fp32 and in bf16: a few calls in turns, small batches first.

Where the processor does not multiply bf16, libraries fall back on loops that are tens or hundreds
of times slower, at some sizes of a layer and not at others. So no call is waited for to its end.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ddpm.runtime.device import Floats, in_precision

LIMIT = 2.5  # seconds for all calls
FAR = 5  # times as slow: no more is measured
GRACE = 0.5  # seconds that a first call in bf16 may always take, while its kernels are compiled
AGAIN = 3  # more calls before that is believed
GROWTH = 4  # from one batch to the next
TURNS = 5  # at the largest batch, if there is time

Clock = Callable[[], float]


class TooSlow(Exception):
    """A call took longer than it was given."""


@runtime_checkable
class Call(Protocol):
    """One call of a network."""

    def __call__(self, precision: Floats, images: int, seconds: float) -> None:
        """Call it on so many images.

        Raises:
            TooSlow: it has taken longer than `seconds`.
        """


@dataclass(frozen=True)
class Times:
    """What a call takes.

    Args:
        images: in it.
        fp32, bf16: seconds; infinite where the call was given up or failed.
        trouble: why it failed.
    """

    images: int
    fp32: float
    bf16: float
    trouble: str = ""


def time_both(
    call: Call, most: int, clock: Clock = time.perf_counter, limit: float = LIMIT
) -> Times | None:
    """Time a network with more and more images in a call, until that takes too long.

    Args:
        call: of the network.
        most: images that a call has at last, if there is time for it.
        clock: seconds of a stopwatch.
        limit: seconds for all.

    Returns:
        The shortest of each at the last number of images; None where there was not even time for
        one image.
    """
    end, images = clock() + limit, 1
    before = (0, 0.0)  # the last number of images, and what a turn of both took
    found: Times | None = None

    def timed(precision: Floats, allowed: float = math.inf) -> float:
        begun = clock()
        call(precision, images, min(allowed, end - begun))
        return clock() - begun

    with contextlib.suppress(TooSlow):  # the time is over; what was found before counts
        while True:
            first = timed("fp32")
            longest = max(GRACE, FAR * first)
            enough = longest < end - clock()
            try:
                timed("bf16", longest)
            except TooSlow:
                return Times(images, first, math.inf) if enough else found
            except Exception as error:  # of somebody's own network, or of a library
                return Times(images, first, math.inf, reason(error))
            found = Times(images, timed("fp32"), timed("bf16"))
            for _ in range(AGAIN):
                if found.bf16 > FAR * found.fp32:  # or did something else run meanwhile?
                    found = Times(images, found.fp32, min(found.bf16, timed("bf16")))
            turn = found.fp32 + found.bf16
            larger = min(GROWTH * images, most)
            an_image = max(0.0, turn - before[1]) / (images - before[0])  # more than that is fixed
            ahead = 3 * (turn + an_image * (larger - images))  # a first call of each, and two turns
            if found.bf16 > FAR * found.fp32 or images >= most or clock() + ahead > end:
                break
            before, images = (images, turn), larger
        for _ in range(TURNS - 1):
            if found.bf16 > FAR * found.fp32 or clock() + turn > end:
                break
            fp32, bf16 = timed("fp32"), timed("bf16")
            found = Times(images, min(found.fp32, fp32), min(found.bf16, bf16))
    return found


def reason(error: Exception) -> str:
    """An error in a few words on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def calls_of(
    network: nn.Module, shape: tuple[int, ...], classes: int, training: bool, clock: Clock
) -> Call:
    """Calls of a network on noise: as samplers call it, or with the gradients of training.

    Args:
        network: on the CPU; gradients are left in it, and random numbers are drawn.
        shape: (c, h, w) of the images.
        classes: that it knows.
        training: whether to go back through it.
        clock: tells when a call has taken too long; it is then ended between two layers.
    """

    def call(precision: Floats, images: int, seconds: float) -> None:
        x, t = torch.randn(images, *shape), torch.zeros(images, dtype=torch.long)
        labels = (torch.zeros_like(t),) if classes else ()
        forward = in_precision(lambda x, t: network(x, t, *labels), precision)
        with ended_after(seconds, network, clock):
            if training:
                forward(x, t).square().mean().backward()
                return
            with torch.inference_mode():
                forward(x, t)

    return call


@contextlib.contextmanager
def ended_after(seconds: float, network: nn.Module, clock: Clock) -> Iterator[None]:
    """Inside, a call of the network ends with `TooSlow` at its first layer after so long."""
    end = clock() + seconds

    def look() -> None:
        if clock() > end:
            raise TooSlow

    def after(layer: nn.Module, inputs: object, output: object) -> None:
        look()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: look())  # on the way back, before the layer

    handles = [layer.register_forward_hook(after) for layer in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
