"""`ddpm decompress RUN FILE -o IMAGE|FOLDER`: the images of a file, or of its beginning."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddpm.cli.given import Given
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.codec import parse as parse_file
from ddpm.data.exact_files import image_paths, write_images
from ddpm.data.foreign import HEAD, what_bytes_are
from ddpm.errors import DdpmError, check
from ddpm.loading import load_for_file
from ddpm.model import Ddpm
from ddpm.provenance import Provenance
from ddpm.runtime.paths import exists, user_path


@dataclass(frozen=True)
class Decompress:
    """Decode a file of `ddpm compress`, or as much as there is of it."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """A .png for a single image, else a folder."""
    bytes: int | None = None
    """Use only so many bytes of the file."""
    fraction: float | None = None
    """Use only this part of the file, 0..1."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    reconstruct: Literal["mean", "sample"] = "mean"
    """What a part decodes to: the mean, which errs least, or a sample, which looks real."""
    provenance: bool = True
    """Write into the images of a part that the model made up what they show of it."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, decode, write, say whether it is exact."""
    name, rest = positional(argv, "a run or checkpoint", "decompress")
    path, rest = positional(rest, "a file after the run", "decompress")
    args = parse(Decompress, rest, f"decompress {name or 'RUN'} {path or 'FILE'}")
    out = user_path(args.out)
    everything = read(path)
    data = prefix(everything, args.bytes, args.fraction)
    file = parse_file(data)
    count = file.header.count
    paths = image_paths(out, count, single=count == 1)
    model = load_for_file(name, file.header.model, args.given.label, args.given.scale)
    with progress_bar() as progress:
        result = model.decompress(file, sample=args.reconstruct == "sample", progress=progress)
    write_images(
        result.images,
        paths,
        model.format,
        [marks(model, name, path, data, args)] * count
        if args.provenance and not result.exact
        else None,
    )
    reached = f"after {result.steps} of {file.header.steps} steps, not exact"
    say(
        f"{count:,} image{'s' * (count > 1)} from {len(data):,} of {len(everything):,} bytes, "
        f"{'exact' if result.exact else reached}: {out}"
    )
    return 0


def marks(model: Ddpm, name: str, path: str, data: bytes, args: Decompress) -> dict[str, str]:
    """The text of an image of a part, whose details are the model's."""
    words = ("decompress", name, path, "--bytes", str(len(data)), "--reconstruct", args.reconstruct)
    given = shlex.split(str(args.given))
    return Provenance.of(model, name, (*words, *given), bytes=len(data)).chunks()


def read(path: str) -> bytes:
    """All of a file, of a pipe, or of what comes in (-)."""
    if path == "-":
        return sys.stdin.buffer.read()
    file = user_path(path)
    check(exists(file), f"{file} does not exist")
    check(not file.is_dir(), f"{file} is a folder; name a file of `ddpm compress`")
    data = file.read_bytes()
    known = what_bytes_are(data[:HEAD])
    if known is not None:
        raise DdpmError(f"{file} is {known[0]}; {known[1]}")
    return data


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
