"""How time and memory grow: with the size of the images, the batch, their number, the processes.

    python benchmarks/growth.py [--points runs/growth.json] [--minutes 60] [--seconds 60]

For training, sampling (DDIM of `--calls` calls) and likelihood (as many steps), with the network
that `ddpm train images` proposes for images of each size on this device, in the precision of
`--precision`. Every point has a process of its own, whose memory is the most that was resident (on
CUDA: allocated); of two processes the sum. A point begins with a batch that is not timed and goes
on for `--seconds`, or for three batches. What a number of images takes is extrapolated from those
that were reached, and marked with ~, and with a hollow circle in the figures.

The points are kept in `--points`. What is there is not measured again, so the script can be ended
at any time, or by `--minutes`, and goes on where it was; so it does after an error of a point,
which is told in its place. From the points it makes the tables (`--out`) and, in `--figures`,
growth-time.png and growth-memory.png.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from budget import reason
from growth_figures import both_figures, both_tables
from growth_point import WORKS, Point, measure

from ddpm.errors import DdpmError, check
from ddpm.runtime import parallel
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.device import best_device

BASE = Point("training", 32, 16)
SIDES, BATCHES = (32, 64, 128, 256), (1, 2, 4, 8, 16, 32, 64, 128)
NUMBERS, PROCESSES = (10, 100, 1000, 10_000, 100_000), (1, 2)
LIMIT = 600.0  # seconds that no point may take longer


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long."""

    points: Path = Path("runs/growth.json")
    """What was measured, point by point."""
    out: Path = Path("runs/growth.md")
    """The tables."""
    figures: Path = Path("docs")
    """Where the figures go."""
    seconds: float = 60.0
    """Of a point, about, without its first batch."""
    minutes: float | None = None
    """No point is begun after so long."""
    calls: int = 50
    """Network calls of a sample, and steps of the bound."""
    precision: str = "auto"
    """fp32 or bf16; auto is fp32 on a CPU, and bf16 on a GPU that has it."""
    dry: bool = False
    """A few tiny points in this process, to see that the script works."""
    point: str | None = None
    """Set by the script for its own processes."""


def axes(dry: bool) -> dict[str, list[Point]]:
    """The points of training along each axis; sampling and likelihood have the same."""
    if dry:
        base = replace(BASE, side=8, batch=2)
        return {
            "side": [replace(base, side=side) for side in (8, 16)],
            "batch": [replace(base, batch=batch) for batch in (1, 2)],
            "images": [replace(base, images=images) for images in (3, 100_000)],
            "processes": [base],
        }
    return {
        "side": [replace(BASE, side=side, batch=8) for side in SIDES],
        "batch": [replace(BASE, batch=batch) for batch in BATCHES],
        "images": [replace(BASE, images=images) for images in NUMBERS],
        "processes": [replace(BASE, processes=processes) for processes in PROCESSES],
    }


def every(dry: bool) -> Iterator[Point]:
    """All points, those first that take the least."""
    along = {point for points in axes(dry).values() for point in points}
    order = sorted(
        along, key=lambda point: (point.side, point.images, point.batch, point.processes)
    )
    for point in order:
        for work in WORKS:
            yield replace(point, work=work)


def machine(options: Options) -> dict[str, Any]:
    """What all points must have in common."""
    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    common = {"device": name, "cores": torch.get_num_threads(), "torch": torch.__version__}
    return {**common, "calls": options.calls, "precision": options.precision, "dry": options.dry}


def kept(options: Options) -> dict[str, Any]:
    """What was measured so far.

    Raises:
        DdpmError: it was measured elsewhere, or with other settings.
    """
    here = machine(options)
    if not options.points.exists():
        return {"machine": here, "points": {}}
    try:
        found: dict[str, Any] = json.loads(options.points.read_text(encoding="utf-8"))
        there = found["machine"]
    except (ValueError, LookupError, TypeError) as error:
        raise DdpmError(f"{options.points} holds no points; choose another file") from error
    check(
        there == here,
        f"{options.points} holds points of {there}, and this is {here}; choose another file",
    )
    return found


def apart(point: Point, options: Options) -> dict[str, Any]:
    """Measure a point in fresh processes.

    Raises:
        DdpmError: it takes too long, or fails; says how.
    """
    threads = max(1, torch.get_num_threads() // point.processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    launcher = [sys.executable]
    if point.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(point.processes)]
    command = [*launcher, str(Path(__file__).resolve()), "--point", json.dumps(asdict(point))]
    command += ["--seconds", str(options.seconds), "--calls", str(options.calls)]
    command += ["--precision", options.precision]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired as error:
        raise DdpmError(f"more than {LIMIT:g} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = [line for line in done.stderr.splitlines() if line.strip(" =-")]
        raise DdpmError(said[-1].strip() if said else f"ended with {done.returncode}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def run(options: Options) -> dict[str, Any]:
    """Measure what is missing; all points."""
    known, begun = kept(options), time.monotonic()
    todo = [p for p in every(options.dry) if "reason" in known["points"].get(p.key, {"reason": ""})]
    for i, point in enumerate(todo):
        if options.minutes is not None and time.monotonic() - begun > 60 * options.minutes:
            print(f"{len(todo) - i} points are left; start the script again to go on")
            break
        try:
            if point.processes > torch.cuda.device_count() > 0:
                raise DdpmError(f"there are fewer than {point.processes} GPUs")
            found = (
                measure(point, options.seconds, options.calls, options.precision)
                if options.dry
                else apart(point, options)
            )
        except Exception as error:
            found = {"reason": str(error) if isinstance(error, DdpmError) else reason(error)}
        known["points"][point.key] = found
        write_text(options.points, to_json(known, 1) + "\n")
        print(f"{i + 1}/{len(todo)} {point.key}: {json.dumps(found)}", flush=True)
    return dict(known["points"])


def main(options: Options) -> None:
    """Measure a point, or what is missing, and then write tables and figures."""
    if options.point is not None:
        found = measure(
            Point(**json.loads(options.point)), options.seconds, options.calls, options.precision
        )
        if found:
            print(json.dumps(found))
        if parallel.launched() > 1:
            parallel.leave(0)
        return
    points = run(options)
    along = axes(options.dry)
    text = both_tables(along, points)
    write_text(options.out, text)
    print(text)
    options.figures.mkdir(parents=True, exist_ok=True)
    for name, picture in both_figures(along, points).items():
        picture.save(options.figures / f"growth-{name}.png")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except DdpmError as error:
        raise SystemExit(str(error)) from error
