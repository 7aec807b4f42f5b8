"""fp32 or bf16 on a CPU: whichever a network takes less time in there, measured once and kept.

For training and drawing only: no count of bits may depend on a stopwatch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

import torch
from torch import nn

from ddpm import __version__
from ddpm.errors import DdpmError, check
from ddpm.runtime import parallel
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.device import Floats, Precision, in_channels_last, resolve_precision
from ddpm.runtime.paths import cache_home
from ddpm.runtime.stopwatch import FAR, LIMIT, Clock, Times, calls_of, reason, time_both

MARGIN = 1.1  # times as fast must bf16 be to be taken
SIDE = 64  # of the images that a network is tried on, at most
VARIABLE = "DDPM_PRECISION"  # of the environment: fp32 or bf16 instead of a measurement
CHOICES: tuple[Floats | None, ...] = (None, *get_args(Floats))
# What tells of matrix and bf16 units, and may change what they do.
FLAGS = ("avx", "amx", "fma", "bf16", "asimd", "sve", "sme", "i8mm")
INTEL_OR_AMD = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
ARM = ("CPU implementer", "CPU part", "CPU variant", "Features")
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")

log = logging.getLogger("ddpm")

_taken: dict[str, Floats] = {}  # what this process has taken, which it keeps to


@dataclass(frozen=True)
class Work:
    """What is to be done again and again.

    Args:
        network: on the CPU.
        settings: from which it was built, which may tell more than its weights.
        shape: (c, h, w) of the images.
        images: in a call.
        fresh: for training, builds another such network, whose gradients are of no use to anybody.
    """

    network: nn.Module
    settings: object
    shape: tuple[int, ...]
    images: int
    fresh: Callable[[], nn.Module] | None = None

    @property
    def classes(self) -> int:
        """That the network knows."""
        return int(getattr(self.settings, "classes", 0))

    @property
    def known_by(self) -> dict[str, Any]:
        """All that tells it from other work."""
        facts = {"layout": layout_of(self.network, self.settings), "shape": list(self.shape)}
        return {**facts, "images": self.images, "training": self.fresh is not None}


@dataclass(frozen=True)
class Taken:
    """What was taken, and why.

    Args:
        precision: fp32 or bf16.
        why: in words.
        lasting: whether it would be the same another time.
    """

    precision: Floats
    why: str
    lasting: bool = True


def layout_of(network: nn.Module, settings: object) -> str:
    """A fingerprint of a network but for its numbers.

    Args:
        network: of which the names and shapes of the weights count.
        settings: from which it was built, which may say more.
    """
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    text = f"{type(network).__module__}.{type(network).__qualname__} {settings!r} {shapes}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def agreed(decide: Callable[[], Floats | None]) -> Floats | None:
    """What the main process decides, in all of them."""
    decided = parallel.on_main(decide)
    return CHOICES[parallel.all_reduce_max(CHOICES.index(decided))]


def faster_precision(
    precision: Precision, device: torch.device, work: Work, clock: Clock = time.perf_counter
) -> Floats:
    """What is asked for; with auto, on a CPU, whichever takes less time for this work.

    That is measured once for a machine and a network, and kept in the cache folder. Every process
    must ask, and all get the same. `DDPM_PRECISION` in the environment takes the place of the
    measurement.

    Args:
        precision: that is asked for.
        device: of the work.
        work: that is measured.
        clock: seconds of a stopwatch.

    Raises:
        DdpmError: the variable of the environment is neither fp32 nor bf16.
    """
    if precision != "auto" or device.type != "cpu":
        return resolve_precision(precision, device)
    known = json.dumps(work.known_by)
    if known not in _taken:
        _taken[known] = agreed(lambda: _decide(work, clock)) or "fp32"
    return _taken[known]


def _decide(work: Work, clock: Clock) -> Floats:
    """Out of the environment, the cache or a measurement; one line says which and why."""
    given = os.environ.get(VARIABLE, "")
    if given:
        check(given in CHOICES, f"{VARIABLE} must be fp32 or bf16, got '{given}'")
        return "bf16" if given == "bf16" else "fp32"
    about = {**machine(), **work.known_by}
    file = _file(about)
    with _only_one(file):
        found, how = _read(file, about), "measured before"
        if found is None:
            found, how = measured(work, clock), "measured"
            if not (found.lasting and _keep(file, about, found)):
                file = None
    where = "not kept" if file is None else f"kept in {file.parent}"
    log.info("precision %s: %s (%s; %s)", found.precision, found.why, how, where)
    return found.precision


def measured(work: Work, clock: Clock = time.perf_counter) -> Taken:
    """Time the work in either precision, without a trace in the random numbers."""
    end, trouble = clock() + LIMIT, ""
    with torch.random.fork_rng(devices=[]):
        network = in_channels_last(work.fresh()) if work.fresh else work.network
        for shape in dict.fromkeys([cut(work.shape), work.shape]):
            call = calls_of(network, shape, work.classes, work.fresh is not None, clock)
            try:
                return choice(time_both(call, work.images, clock, end - clock()), work, shape)
            except Exception as error:  # a network of one's own may refuse smaller images
                trouble = reason(error)
    return Taken("fp32", f"the network could not be tried: {trouble}", lasting=False)


def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Images halved until they are small enough to try a network on them."""
    channels, height, width = shape
    while max(height, width) > SIDE and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
    return channels, height, width


def choice(times: Times | None, work: Work, shape: tuple[int, ...]) -> Taken:
    """The faster precision; fp32 unless bf16 is faster by far enough."""
    if times is None:
        return Taken("fp32", f"not even one image was done in {LIMIT:g} s", lasting=False)
    if times.trouble:
        return Taken("fp32", f"bf16 fails ({times.trouble})", lasting=False)
    precision: Floats = "bf16" if MARGIN * times.bf16 <= times.fp32 else "fp32"
    other: Floats = "fp32" if precision == "bf16" else "bf16"
    count = f"{times.images:,} image{'s' * (times.images > 1)}"
    size = "" if shape == work.shape else f" of {shape[2]}x{shape[1]} pixels"
    what = "a call and its gradients" if work.fresh else "a call"
    taken, left = (_seconds(getattr(times, name)) for name in (precision, other))
    # Small calls are in favour of fp32: unless they are far slower, time may have been too short.
    lasting = precision == "bf16" or times.images >= work.images or times.bf16 > FAR * times.fp32
    return Taken(precision, f"{what} with {count}{size} takes {taken}, in {other} {left}", lasting)


def _seconds(value: float) -> str:
    """A time for people."""
    return "far more" if math.isinf(value) else f"{1000 * value:.3g} ms"


def machine() -> dict[str, Any]:
    """What decides how long arithmetic takes here."""
    bf16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bool(torch.backends.mkldnn.is_available() and bf16 is not None and bf16()),
        "limits": {name: os.environ.get(name) for name in LIMITS},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ddpm": __version__,
    }


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The model, and those of its instructions that matter."""
    words: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):  # only Linux has the file
        first = path.read_text(encoding="utf-8").split("\n\n")[0]
        for line in first.splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name in ("flags", "Features"):
                value = " ".join(flag for flag in value.split() if flag.startswith(FLAGS))
            words += [value] * (name in (*INTEL_OR_AMD, *ARM))
    return ", ".join(words) or f"{platform.processor()} {platform.machine()}"


def _file(about: dict[str, Any]) -> Path | None:
    """Where it is kept; None where nothing can be."""
    stamp = hashlib.blake2b(to_json(about).encode(), digest_size=12).hexdigest()
    try:
        return cache_home() / "ddpm" / f"precision-{stamp}.json"
    except OSError:  # there is not even a folder for temporary files
        return None


def _read(file: Path | None, about: dict[str, Any]) -> Taken | None:
    """What was found before; None if nothing was, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))  # type: ignore[union-attr]
        precision, why = found["precision"], found["why"]
        if found["about"] == about and precision in get_args(Floats) and isinstance(why, str):
            return Taken(precision, " ".join(why.split())[:300])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _keep(file: Path | None, about: dict[str, Any], found: Taken) -> bool:
    """Write it down for the next time; whether that was possible."""
    if file is None:
        return False
    document = {"precision": found.precision, "why": found.why, "about": about}
    try:
        write_text(file, to_json(document, 1) + "\n")
    except DdpmError:
        return False
    return True


@contextlib.contextmanager
def _only_one(file: Path | None) -> Iterator[None]:
    """One process at a time, which the others read from; where there are no locks (Windows, a
    folder that cannot be written), or it takes too long, several at once."""
    with contextlib.ExitStack() as stack:
        if file is not None:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                file.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(file.with_suffix(".lock").open("w"))
                end = time.monotonic() + 2 * LIMIT
                while not _locked(lock, fcntl) and time.monotonic() < end:
                    time.sleep(0.05)
        yield


def _locked(lock: IO[str], fcntl: Any) -> bool:
    """Whether a file is this process's alone now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
