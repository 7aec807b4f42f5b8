"""What `gpu.py` times: every row, our side of it and that of `diffusers`."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from budget import reason
from peers import (
    PAPER,
    TINY,
    Size,
    diffusers_peer,
    diffusers_sampling,
    in_turns,
    our_model,
    our_peer,
    timed,
)

from ddpm import Plan
from ddpm.runtime.device import Precision

ROUND = 0.5  # seconds of a round, about
WARM = 3  # calls before anything is timed
LONG = 60  # characters of a reason


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path = Path("gpu.md")
    """The tables, as Markdown."""
    minutes: float = 8.0
    """For everything; what does not fit is left out, and told."""
    rounds: int = 5
    """How often each variant is timed."""
    calls: int = 50
    """Network calls of a sample, and steps of the codec."""
    dry: bool = False
    """Every row with a tiny network, few calls and no compiler, to see that the script works."""

    @property
    def size(self) -> Size:
        """Of the network."""
        return TINY if self.dry else PAPER

    @property
    def steps(self) -> int:
        """Network calls."""
        return min(self.calls, 3) if self.dry else self.calls


@dataclass(frozen=True)
class Row:
    """One row of training or sampling: what is done, and how."""

    what: str
    precision: str
    batch: int
    compiled: bool = False

    @property
    def kind(self) -> str:
        """How long it takes depends on it."""
        return "compiled" if self.compiled else "plain"

    @property
    def floats(self) -> Precision:
        """TF32 is float32 that is multiplied with fewer digits."""
        return "bf16" if self.precision == "bf16" else "fp32"

    def images(self, options: Options) -> int:
        """Of a batch."""
        return min(self.batch, 4) if options.dry else self.batch


ROWS = [
    *(Row(what, "bf16", 128) for what in ("training", "sampling")),
    *(Row(what, "tf32", 128) for what in ("training", "sampling")),
    *(Row(what, "bf16", 512) for what in ("training", "sampling")),
    *(Row(what, "fp32", 128) for what in ("training", "sampling")),
    *(Row(what, "bf16", 128, True) for what in ("training", "sampling")),
    *(Row(what, "bf16", 512, True) for what in ("training", "sampling")),
    *(Row(what, "tf32", 128, True) for what in ("training", "sampling")),
]
CODECS: list[tuple[Precision, int]] = [("bf16", 8), ("fp32", 8)]  # and the number of images


@dataclass
class Found:
    """What was found of one variant: seconds of a call, several times; or why there are none."""

    times: list[float] = field(default_factory=list)
    peak: int = 0
    reason: str = "out of time"

    def rate(self, images: int) -> float | None:
        """Images a second."""
        return images / statistics.median(self.times) if self.times else None

    def cell(self, images: int) -> str:
        """The same as text, or why there is none."""
        rate = self.rate(images)
        return self.reason[:LONG] if rate is None else f"{rate:,.4g}"


class Notices(logging.Handler):
    """What the package says meanwhile, such as that the compiler failed."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said.append(record.getMessage())


def allow_tf32(wanted: bool) -> None:
    """Let float32 products on a GPU be computed in TF32, or not.

    By settings that the compiler can read: it fails after others (`fp32_precision`) were used.
    """
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    torch.backends.cudnn.allow_tf32 = wanted


def ours(row: Row, options: Options, device: torch.device) -> Callable[[], object]:
    """This project's step, or its sampling."""
    batch = row.images(options)
    if row.what == "training":
        return our_peer(batch, device, row.floats, row.compiled, options.size).step
    model = our_model(device, row.floats, row.compiled, options.size)
    plan = Plan(options.steps)
    return lambda: model.sample(batch, batch_size=batch, sampler="ddim", plan=plan)


def theirs(row: Row, options: Options, device: torch.device) -> Callable[[], object]:
    """The same of `diffusers`."""
    batch, bf16, size = row.images(options), row.precision == "bf16", options.size
    how = {"bf16": bf16, "channels_last": True, "compiled": row.compiled}
    if row.what == "training":
        return diffusers_peer(batch, device, **how, size=size).step
    return diffusers_sampling(batch, device, options.steps, **how, size=size)


MAKERS = {"ddpm": ours, "diffusers": theirs}


def prepared(
    make: Callable[[], Callable[[], object]], device: torch.device, warm: int = WARM
) -> tuple[Callable[[], object], int]:
    """A variant, after `warm` calls, and the bytes that it had allocated at most.

    Raises:
        RuntimeError: the compiler failed, and the package went on without it.
    """
    before, notices, logger = 0, Notices(), logging.getLogger("ddpm")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    logger.addHandler(notices)
    try:
        call = make()
        for _ in range(warm):
            timed(call, device)
    finally:
        logger.removeHandler(notices)
    for notice in notices.said:
        if "torch.compile failed" in notice:
            raise RuntimeError(notice)
    most = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return call, most


def measure(row: Row, options: Options, device: torch.device, found: dict[str, Found]) -> None:
    """Build the variants, warm them up and time them in turns.

    Args:
        row: what to do.
        options: how often.
        device: where.
        found: is filled on the way, so that what was found before an error counts.
    """
    allow_tf32(row.precision == "tf32")
    calls: dict[str, Callable[[], object]] = {}
    repeats: dict[str, int] = {}
    for name, make in MAKERS.items():
        try:
            build, warm = partial(make, row, options, device), 1 if options.dry else WARM
            call, found[name].peak = prepared(build, device, warm)
            least = 0.0 if options.dry else ROUND
            repeats[name] = max(1, math.ceil(least / timed(call, device)))
            calls[name] = repeated(call, repeats[name])
        except Exception as error:
            found[name].reason = reason(error)
    for name, spent in in_turns(calls, options.rounds, device):
        found[name].times.append(spent / repeats[name])


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    """The call, several times."""

    def several() -> None:
        for _ in range(times):
            call()

    return several
