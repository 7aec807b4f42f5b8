"""What a step of so many bits of KL costs: path bits beyond it, for as much to arrive as is meant.

    python benchmarks/prices.py [MODEL --images PATH] [--kl 5 20 100 1000] [--total 100000]

For made-up targets (mu ~ N(0, (1-v) I), v by the KL, in `--dims` dimensions) and, with a model and
its images, for those of its own steps: files of 1, 4, 16, ... images are sent as `compress` does,
and each step's target is searched again with more and fewer bits. The overhead is where
log2 q(z) / p(z) of what arrives equals KL(q || p) on average over the targets, interpolated. Beside
it stands `ddpm.codec.prices.overhead`.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
import tyro

from ddpm import load, open_data
from ddpm.codec import CodecModel, compress
from ddpm.codec.prices import overhead
from ddpm.codec.transmission import delivered
from ddpm.codec.tree_code import Floats, Ints, Tree, TreeCode
from ddpm.runtime.randomness import derive_key

RATES = (1.0, 1.04, 1.08, 1.12, 1.18, 1.26, 1.4, 1.6, 2.0, 2.6)
NEEDED = 1.02  # of the KL arrives: higher rates are left out
Target = tuple[Floats, Floats]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: tyro.conf.Positional[str | None] = None
    """A model whose steps are searched too."""
    images: str | None = None
    """Its images."""
    archives: tuple[int, ...] = (1, 4, 16)
    """Images in each file of them."""
    files: int = 2
    """Files of each size."""
    steps: int = 25
    """K."""
    kl: tuple[int, ...] = (5, 10, 20, 35, 50, 100, 200, 400, 1000, 2000, 4000, 10_000)
    """KL of made-up targets; for a model's the limits between groups."""
    dims: int = 768
    """Dimensions of made-up targets."""
    total: int = 40_000
    """Bits of KL of all targets of about one KL together, and at most"""
    most: int = 400
    """so many targets."""
    segment: int | None = None
    """Bits of a segment of a path; one segment by default."""


def kl_bits(target: Target) -> float:
    """KL(q || p) of a target."""
    mean, variance = (part.astype(np.float64) for part in target)
    return float(0.5 * (mean**2 + variance - 1 - np.log(variance)).sum() / math.log(2))


def count(kl: float, options: Options) -> int:
    """Targets of that KL that are searched."""
    return min(options.most, max(2, round(options.total / kl)))


def made_up(options: Options, kl: int) -> list[Target]:
    """Targets of about that KL."""
    d = options.dims
    v = 2 ** (-2 * kl / d)
    found = []
    for seed in range(count(kl, options)):
        generator = np.random.default_rng(derive_key(seed, "target", kl, d))
        mean = (math.sqrt(1 - v) * generator.standard_normal(d)).astype(np.float32)
        found.append((mean, np.full(d, v, np.float32)))
    return found


def steps_of(model: CodecModel, options: Options) -> list[Target]:
    """The targets of the steps of files of a model's images."""
    found: list[Target] = []
    search, source, first = Tree.search, open_data(options.images or ""), 0

    def watched(tree: Tree, mean: Floats, variance: Floats) -> Ints:
        found.append((mean, variance))
        return search(tree, mean, variance)

    for count in options.archives:
        for _ in range(options.files):
            images = list(source[torch.arange(first, first + count)])
            first += count
            with patch.object(Tree, "search", watched):
                compress(model, images, steps=options.steps)
    return found


def measured(targets: Sequence[Target], segment: int | None) -> tuple[float, float, float]:
    """(mean KL, path bits beyond the KL for each bit of it, residual over its right value)."""
    code = TreeCode(segment=segment)
    kl, before = sum(map(kl_bits, targets)), (0.0, 0.0, 0.0)
    for rate in RATES:
        sent, told, residual = 0, 0.0, 0.0
        for i, (mean, variance) in enumerate(targets):
            bits = round(rate * kl_bits((mean, variance)))
            tree = code.grow(len(mean), bits, derive_key(i, "price", bits))
            z = tree.vector(tree.search(mean, variance))
            sent += bits
            told += delivered(z, mean, variance)
            residual += float(((z - mean) ** 2 / variance).mean()) / len(targets)
        now = (sent / kl, told / kl, residual)
        if told >= kl:
            break
        before = now
    (r0, t0, v0), (r1, t1, v1) = before, now
    part = (1 - t0) / (t1 - t0) if t1 > t0 else 1.0
    return kl / len(targets), r0 + part * (r1 - r0) - 1, v0 + part * (v1 - v0)


def rows(name: str, groups: Iterable[Sequence[Target]], segment: int | None) -> None:
    """Print a line for each group."""
    for targets in groups:
        kl, excess, residual = measured(targets, segment)
        print(
            f"| {name} | {kl:,.1f} | {len(targets)} | {excess:.3f} "
            f"| {float(overhead(kl)):.3f} | {residual:.3f} |"
        )
        sys.stdout.flush()


def main(options: Options) -> None:
    """Print the table."""
    print("| targets | KL, bits | how many | overhead | by the formula | residual / v |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    name = f"made up, {options.dims:,} dimensions"
    rows(name, (made_up(options, kl) for kl in options.kl), options.segment)
    if options.model is not None:
        targets = steps_of(load(options.model, "cpu").for_codec(), options)
        middles = (math.sqrt(a * b) for a, b in itertools.pairwise(options.kl))
        edges = [0.0, *middles, 1e9]
        groups = [
            [target for target in targets if low <= kl_bits(target) < high][: count(high, options)]
            for low, high in itertools.pairwise(edges)
        ]
        rows(options.model, filter(None, groups), options.segment)


if __name__ == "__main__":
    main(tyro.cli(Options))
