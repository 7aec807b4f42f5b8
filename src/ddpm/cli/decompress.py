"""`ddpm decompress RUN FILE -o IMAGE|FOLDER`: the images of a file, or of its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import counting_bar, progress_bar
from ddpm.codec.header import unpack
from ddpm.data.exact_files import write_images
from ddpm.errors import check
from ddpm.model import load


@dataclass(frozen=True)
class Decompress:
    """Decode a file of `ddpm compress`, or as much as there is of it."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """A .png for a single image, else a folder."""
    bytes: int | None = None
    """Use only so many bytes of the file."""
    fraction: float | None = None
    """Use only this part of the file, 0..1."""
    reconstruct: Literal["mean", "sample"] = "mean"
    """What a part decodes to: the mean, which errs least, or a sample, which looks real."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, decode, write, say whether it is exact."""
    name, rest = positional(argv, "a run or checkpoint", "decompress")
    path, rest = positional(rest, "a file after the run", "decompress")
    args = parse(Decompress, rest, f"decompress {name or 'RUN'} {path or 'FILE'}")
    out = args.out.expanduser()
    check(args.bytes is None or args.fraction is None, "give --bytes or --fraction, not both")
    check(args.bytes is None or args.bytes >= 1, f"--bytes must be at least 1, got {args.bytes}")
    check(
        args.fraction is None or 0 < args.fraction <= 1,
        f"--fraction must lie in (0, 1], got {args.fraction}",
    )
    file = Path(path).expanduser()
    check(file.is_file(), f"{file} is not a file")
    data = file.read_bytes()
    size = len(data)
    if args.fraction is not None:
        data = data[: round(size * args.fraction)]
    data = data[: args.bytes]
    header, _ = unpack(data)
    check(
        header.count == 1 or out.suffix != ".png",
        f"the file holds {header.count:,} images; give --out a folder instead of {out}",
    )
    model = load(name)
    with progress_bar("evaluations") as bar:
        progress = counting_bar(bar, "decompressing")
        result = model.decompress(data, sample=args.reconstruct == "sample", progress=progress)
    write_images(result.images, out, model.facts)
    state = "exact" if result.exact else f"after {result.steps} of {header.steps} steps, not exact"
    count = len(result.images)
    say(f"{count:,} image{'s' * (count > 1)} from {len(data):,} of {size:,} bytes, {state}: {out}")
    return 0
