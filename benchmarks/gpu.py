"""Speed and memory of the 35.7M CIFAR-10 network on a GPU, beside `diffusers` in the same settings.

    python benchmarks/gpu.py [--out gpu.md] [--minutes 8]

Needs nothing but the project: images are random, weights untrained. Training is a whole step
(noise, both passes, clipping, optimiser, averages); sampling is DDIM, noise and pixels included;
the codec is a round trip of a file of random images, which cost more bits than any others.
`diffusers` has its weights channels last, as ours are. After warming up, both take turns for
`--rounds` rounds of about half a second each, and the table shows medians. Peak memory is what
PyTorch had allocated for a variant at most. MFU counts the arithmetic of the network only, against
the dense peak of the data sheet, of which TF32 reaches half.

The table is written after every row. A row that fails or does not fit into the time says so in its
place; compiled rows, which wait for the compiler, come last. A CPU has no TF32 (the rows are plain
fp32), and of it neither MFU nor peak memory is told.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
import tyro
from budget import Budget, OutOfTime, reason
from gpu_rows import CODECS, MAKERS, ROWS, Found, Options, Row, allow_tf32, measure
from peers import our_model, timed

from ddpm.runtime.atomic import write_text
from ddpm.runtime.device import Precision, best_device
from ddpm.training.throughput import forward_flops, peak_flops

GUESSES = {"plain": 15.0, "codec": 30.0, "compiled": 90.0}  # seconds of a first row of each kind
HEAD = [
    *("what", "precision", "compiled", "batch", "images/s", "MFU", "peak GiB"),
    *("diffusers, images/s", "its peak GiB", "ratio"),
]
CODEC = [
    *("codec", "precision", "images", "compress, images/s", "decompress, images/s"),
    *("bits/dim", "peak GiB", "exact"),
]


def line(row: Row, options: Options, device: torch.device, found: dict[str, Found]) -> str:
    """A row of the table."""
    images = row.images(options)
    rates = {name: what.rate(images) for name, what in found.items()}
    mine, other = rates["ddpm"], rates["diffusers"]
    peak = peak_flops(device, row.precision)
    mfu = ratio = "n/a"
    if mine is not None and peak is not None:
        model = our_model(torch.device("cpu"), "fp32", size=options.size)
        passes = 3 if row.what == "training" else options.steps
        work = passes * forward_flops(model.network, options.size.format.shape)
        mfu = f"{mine * work / peak:.0%}"
    if mine is not None and other is not None:
        ratio = f"{mine / other:.2f}"
    cells = [row.what, row.precision, "yes" if row.compiled else "no", str(images)]
    cells += [found["ddpm"].cell(images), mfu, gib(found["ddpm"].peak)]
    cells += [found["diffusers"].cell(images), gib(found["diffusers"].peak), ratio]
    return in_cells(cells)


def in_cells(values: list[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(values)} |"


def gib(size: int) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:.2f}" if size else "n/a"


def codec_line(precision: Precision, count: int, options: Options, device: torch.device) -> str:
    """A round trip of some images through a file, as a row of its table."""
    allow_tf32(False)
    size, count = options.size, min(count, 2) if options.dry else count
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model, sides = our_model(device, precision, size=size), size.format.shape
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *sides), generator=generator).to(torch.uint8)
    model.measure(images, timesteps=8)
    model.learn_coding(images, steps=20)
    model.compress(images[:1], steps=options.steps)  # warms up, and makes the codebooks
    made: dict[str, object] = {}

    def compress() -> None:
        made["file"] = model.compress(images, steps=options.steps)

    def decompress() -> None:
        file = made["file"]
        assert isinstance(file, bytes)
        made["images"] = model.decompress(file).images

    there, back = timed(compress, device), timed(decompress, device)
    file, decoded = made["file"], made["images"]
    assert isinstance(file, bytes)
    assert isinstance(decoded, list)
    bits = 8 * len(file) / images.numel()
    same = all(torch.equal(one, other) for one, other in zip(images, decoded, strict=True))
    most = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    cells = [f"{options.steps} steps", precision, str(count), f"{count / there:.3g}"]
    cells += [f"{count / back:.3g}", f"{bits:.2f}", gib(most), "yes" if same else "NO"]
    return in_cells(cells)


def heading(options: Options, device: torch.device) -> list[str]:
    """What was measured, on what."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    try:
        import diffusers

        peer = f"diffusers {diffusers.__version__}"
    except ImportError:
        peer = "diffusers is not installed"
    model = our_model(torch.device("cpu"), "fp32", size=options.size)
    network = (
        f"{model.num_parameters / 1e6:.1f}M parameters, {options.size.side}x{options.size.side}"
    )
    return [
        f"{name}, PyTorch {torch.__version__}, {peer}; {network}; DDIM of {options.steps} calls; "
        f"medians of {options.rounds} rounds in turns."
    ]


class Report:
    """The tables as far as they are: printed row by row, and written after each.

    Args:
        path: of the file.
        lines: that come first.
    """

    def __init__(self, path: Path, lines: list[str]) -> None:
        self.path = path
        self.lines: list[str] = []
        self.add(*lines)

    def add(self, *lines: str) -> None:
        """More lines."""
        self.lines += lines
        print("\n".join(lines), flush=True)
        write_text(self.path, "\n".join(self.lines) + "\n")

    def head(self, names: list[str]) -> None:
        """The head of a table."""
        self.add("", in_cells(names), in_cells(["---"] * len(names)))


def speeds(
    rows: list[Row], options: Options, device: torch.device, budget: Budget, report: Report
) -> None:
    """Rows of training and sampling, each on its own."""
    report.head(HEAD)
    for row in rows:
        found = {name: Found() for name in MAKERS}
        if not budget.fits(row.kind):
            skipped = f"left out: {budget.left:.0f} s are left"
            found = {name: Found(reason=skipped) for name in MAKERS}
        else:
            try:
                with budget.row(row.kind):
                    measure(row, options, device, found)
            except OutOfTime:
                pass  # what has no times says so
            except Exception as error:
                for what in found.values():
                    what.reason = reason(error)
            forget(row, device)
        report.add(line(row, options, device, found))


def forget(row: Row, device: torch.device) -> None:
    """Give back what a row took."""
    gc.collect()
    if row.compiled:
        torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def codecs(options: Options, device: torch.device, budget: Budget, report: Report) -> None:
    """Rows of the codec."""
    report.head(CODEC)
    for precision, count in CODECS:
        said = f"left out: {budget.left:.0f} s are left"
        if budget.fits("codec"):
            try:
                with budget.row("codec"):
                    report.add(codec_line(precision, count, options, device))
                continue
            except (Exception, OutOfTime) as error:
                said = reason(error)
        cells = [f"{options.steps} steps", precision, str(count), said, *["n/a"] * 4]
        report.add(in_cells(cells))


def main(options: Options) -> None:
    """Measure row by row."""
    device = best_device()
    options = replace(options, rounds=1) if options.dry else options
    budget = Budget(60 * options.minutes, dict.fromkeys(GUESSES, 0.0) if options.dry else GUESSES)
    report = Report(options.out, heading(options, device))
    speeds([row for row in ROWS if not row.compiled], options, device, budget, report)
    codecs(options, device, budget, report)
    with torch.compiler.set_stance("force_eager") if options.dry else nullcontext():
        speeds([row for row in ROWS if row.compiled], options, device, budget, report)
    report.add("", f"{(60 * options.minutes - budget.left) / 60:.1f} minutes in all.")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
