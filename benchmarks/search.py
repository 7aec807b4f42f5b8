"""The search of the tree code, as it was in NumPy and compiled: levels a second, bits, start-up.

    python benchmarks/search.py [--bits 4000] [--dims 98304] [--rounds 5]

Made-up targets: mu ~ N(0, (1-v) I), with v such that a path of that many bits is `RATE` times the
KL. The variants search the same targets in turns: the NumPy search that the first files were
written with (BLAS on one thread), the compiled one without and with segments on one thread, and
with segments on as many as there are. Times are medians, told as ratios; what a path costs over
what it delivers (log2 q/p) is summed over the targets.

Then, in new processes, the seconds from `import ddpm.codec` to the end of a first small search:
with the machine code kept, with an empty cache, and with no place for one.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import tyro

from ddpm.codec.beam import GOLDEN, MIX_1, MIX_2, ROWS, STRIDE, Floats, Ints, States
from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import Tree, TreeCode, codebook
from ddpm.runtime.randomness import derive_key
from ddpm.runtime.threads import usable_cpus

RATE = 1.08
BLOCK = 512  # branches scored by one matrix product
SEGMENT = 2000
START = """
import time
begun = time.perf_counter()
import numpy as np
import ddpm.codec.tree_code as code
imported = time.perf_counter()
code.TreeCode().grow(64, 40, 1).search(np.ones(64, np.float32), np.full(64, 0.5, np.float32))
print(imported - begun, time.perf_counter() - begun)
"""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    bits: int = 4000
    """Of a path."""
    dims: int = 98304
    """Of a target."""
    rounds: int = 5
    """Targets, each searched by every variant."""
    beam: int = 1024
    """Paths kept."""
    start_up: bool = True
    """Also measure new processes."""


@dataclass
class Variant:
    """One way to search, and what was measured of it."""

    grow: Callable[[int, int, int], Tree]
    search: Callable[[Tree, Floats, Floats], Ints]
    seconds: list[float] = field(default_factory=list)
    told: float = 0.0


def numpy_search(tree: Tree, mean: Floats, variance: Floats) -> Ints:
    """The path that the first files were written with."""
    linear = np.append(tree.signs * mean / variance, np.float32(0)).astype(np.float32)
    square = np.append(0.5 * (1 / variance - 1), np.float32(0)).astype(np.float32)
    states, scores, history = tree.roots, np.zeros(1, np.float32), []
    for begin in range(0, len(tree.bits), BLOCK):
        block = slice(begin, begin + BLOCK)
        gains = numpy_gains(tree.dims[block], linear, square)
        for gain, k in zip(gains, tree.bits[block].tolist(), strict=True):
            grown = numpy_children(states, k)
            total = (scores[:, None] + gain[(grown >> np.uint64(52)).astype(np.int64)]).reshape(-1)
            kept = np.arange(len(total))
            if len(total) > tree.beam:
                kept = np.argpartition(total, len(total) - tree.beam)[-tree.beam :]
            history.append(kept.astype(np.min_scalar_type(len(total))))
            states, scores = grown.reshape(-1)[kept], total[kept]
    path, at = [], int(scores.argmax())
    for kept, k in zip(reversed(history), reversed(tree.bits.tolist()), strict=True):
        at, child = divmod(int(kept[at]), 1 << k)
        path.append(child)
    return np.array(path[::-1], dtype=np.int64)


def numpy_gains(dims: Ints, linear: Floats, square: Floats) -> Floats:
    """[branches, ROWS], how much each row of the table would add to a score."""
    both = np.concatenate([codebook(), -(codebook() ** 2)], axis=1)
    weights = np.concatenate([linear[dims], square[dims]], axis=2)
    gains = np.zeros((len(dims), ROWS), np.float32)
    for stretch in range(dims.shape[1]):
        rows = (np.arange(ROWS) + STRIDE * stretch) % ROWS
        gains += (weights[:, stretch] @ both.T)[:, rows]
    return gains


def numpy_children(states: States, bits: int) -> States:
    """[n, 2^bits], the states of the children of each state."""
    x = (states ^ (states >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    x = x ^ (x >> np.uint64(31))
    with np.errstate(over="ignore"):
        odd = np.arange(1, 2 << bits, 2, dtype=np.uint64) * GOLDEN
        return x[:, None] * odd | np.uint64(1)


def variants(options: Options) -> dict[str, Variant]:
    """All ways, the one of before first."""
    whole, cut = TreeCode(beam=options.beam), TreeCode(beam=options.beam, segment=SEGMENT)
    cores = usable_cpus()
    return {
        "NumPy, one core": Variant(whole.grow, numpy_search),
        "compiled, one core": Variant(whole.grow, lambda *a: Tree.search(*a, threads=1)),
        f"compiled, segments of {SEGMENT:,} bits, one core": Variant(
            cut.grow, lambda *a: Tree.search(*a, threads=1)
        ),
        f"compiled, segments of {SEGMENT:,} bits, {cores} cores": Variant(
            cut.grow, lambda *a: Tree.search(*a, threads=cores)
        ),
    }


def measure(options: Options) -> dict[str, Variant]:
    """Let all search the same targets in turns."""
    ways = variants(options)
    d, v = options.dims, 2 ** (-2 * options.bits / RATE / options.dims)
    variance = np.full(d, v, np.float32)
    for seed in range(options.rounds + 1):
        generator = np.random.default_rng(derive_key(seed, "target", options.bits))
        mean = (math.sqrt(1 - v) * generator.standard_normal(d)).astype(np.float32)
        for way in ways.values():
            tree = way.grow(d, options.bits, derive_key(seed, "made up", options.bits))
            begun = time.perf_counter()
            path = way.search(tree, mean, variance)
            if seed:  # the first round is for compiling
                way.seconds.append(time.perf_counter() - begun)
                way.told += delivered(tree.vector(path), mean, variance)
    return ways


def table(options: Options, ways: dict[str, Variant]) -> None:
    """Print what was measured."""
    levels = -(-options.bits // 4)
    before = statistics.median(next(iter(ways.values())).seconds)
    print(f"{options.bits:,} bits, {options.dims:,} dimensions, beam {options.beam:,}")
    print("| search | ms a level | levels/s | times as fast | sent / delivered |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, way in ways.items():
        seconds = statistics.median(way.seconds)
        sent = options.rounds * options.bits / way.told
        print(
            f"| {name} | {1000 * seconds / levels:.3f} | {levels / seconds:,.0f} "
            f"| {before / seconds:.1f} | {sent:.4f} |"
        )


def start_up() -> None:
    """Print what a first search takes in a new process."""
    print("\n| first search of a process | import, s | in all, s |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        places = {
            "empty cache": folder,
            "code kept": folder,
            "no place for a cache": os.path.join(os.devnull, "nowhere"),
        }
        for name, place in places.items():
            done = subprocess.run(
                [sys.executable, "-c", START],
                env={**os.environ, "XDG_CACHE_HOME": place},
                capture_output=True,
                text=True,
                check=True,
            )
            imported, whole = map(float, done.stdout.split())
            print(f"| {name} | {imported:.2f} | {whole:.2f} |")


def main(options: Options) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    table(options, measure(options))
    if options.start_up:
        start_up()


if __name__ == "__main__":
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable) != "1":  # NumPy's BLAS reads it when it is imported
            os.environ[variable] = "1"
            os.execv(sys.executable, [sys.executable, *sys.argv])
    main(tyro.cli(Options))
