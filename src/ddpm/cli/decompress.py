"""`ddpm decompress RUN FILE -o IMAGE|FOLDER`: the images of a file, or of its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.codec import parse as parse_file
from ddpm.data.exact_files import write_images
from ddpm.errors import check
from ddpm.loading import load


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
    everything = read(Path(path).expanduser())
    data = prefix(everything, args.bytes, args.fraction)
    file = parse_file(data)
    check(
        file.header.count == 1 or out.suffix != ".png",
        f"the file holds {file.header.count:,} images; give --out a folder instead of {out}",
    )
    model = load(name)
    with progress_bar() as progress:
        result = model.decompress(file, sample=args.reconstruct == "sample", progress=progress)
    write_images(result.images, out, model.format)
    reached = f"after {result.steps} of {file.header.steps} steps, not exact"
    count = len(result.images)
    say(
        f"{count:,} image{'s' * (count > 1)} from {len(data):,} of {len(everything):,} bytes, "
        f"{'exact' if result.exact else reached}: {out}"
    )
    return 0


def read(path: Path) -> bytes:
    """All of a file."""
    check(path.is_file(), f"{path} is not a file")
    return path.read_bytes()


def prefix(data: bytes, size: int | None, fraction: float | None) -> bytes:
    """The first bytes of a file that --bytes or --fraction asks for."""
    check(size is None or fraction is None, "give --bytes or --fraction, not both")
    check(size is None or size >= 1, f"--bytes must be at least 1, got {size}")
    check(
        fraction is None or 0 < fraction <= 1,
        f"--fraction must lie in (0, 1], got {fraction}",
    )
    if fraction is not None:
        return data[: round(len(data) * fraction)]
    return data[:size]
