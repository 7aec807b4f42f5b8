"""`ddpm decompress RUN FILE -o IMAGE|FOLDER`: the images of a file, or of its beginning."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional
from ddpm.cli.progress import progress_bar
from ddpm.codec import Decompressed, Header, Reconstruct
from ddpm.codec import parse as parse_file
from ddpm.codec.extraction import check_file
from ddpm.codec.names import LONGEST, written_names
from ddpm.data.exact_files import image_paths, numbered, write_images
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
    reconstruct: Reconstruct = "mean"
    """What a beginning decodes to: mean, the predicted image, which errs least; sample, which
    looks real; average, the mean of several samples, which takes longest."""
    only: tuple[str, ...] = ()
    """Names of the images that are wanted, or numbers from 0; all by default."""
    names: bool = True
    """Write the images under the names that the file holds, instead of numbers."""
    provenance: bool = True
    """Write into the images of a part that the model made up what they show of it."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, decode, write, say whether it is exact."""
    path, rest = positional(argv, "a file of `ddpm compress`", "decompress")
    name = None
    if rest and (rest[0] == "-" or not rest[0].startswith("-")):
        name, path, rest = path, rest[0], rest[1:]
    args = parse(Decompress, rest, f"decompress {name or '[RUN]'} {path or 'FILE'}")
    out = user_path(args.out)
    check(bool(args.only) or "--only" not in rest, "--only needs names or numbers of images")
    everything = read(path)
    data = prefix(everything, args.bytes, args.fraction)
    file = parse_file(data)
    numbers = wanted(file.header, args.only)
    model, name = load_for_file(name, file.header, args.given.label, args.given.scale)
    check_file(model.for_codec(), file)  # else places would be made for images that cannot be there
    paths = places(file.header, numbers, out, args.names)
    with progress_bar() as progress:
        result = model.decompress(
            file, only=numbers, reconstruct=args.reconstruct, progress=progress
        )
    check(
        len(result.images) > 0,
        f"none of these images has arrived in {len(data):,} bytes; use more of the file",
    )
    write_images(
        result.images,
        [paths[number] for number in result.numbers],
        model.format,
        [
            marks(model, name, path, data, args, number if file.header.count > 1 else None)
            if args.provenance and number in result.guessed
            else {}
            for number in result.numbers
        ],
        replace=False,
    )
    count = len(result.images)
    missing, exact = len(paths) - count, count - len(result.guessed)
    tell(
        images=count,
        missing=missing,
        bytes=len(data),
        of_bytes=len(everything),
        exact=result.exact,
        exact_images=exact,
        steps=result.steps,
    )
    finish(
        f"{count:,} image{'s' * (count != 1)} from {len(data):,} of {len(everything):,} bytes, "
        f"{reached(result, exact)}: {out}",
        *[f"{missing:,} more have not arrived"] * bool(missing),
        made=[out],
    )
    return 0


def reached(result: Decompressed, exact: int) -> str:
    """How far the bytes reach, in words; `exact` of the images are exact."""
    if not result.guessed:
        return "exact"
    several = f"{exact:,} of them exact, the rest " if exact else ""
    steps = f"{result.steps} step{'s' * (result.steps != 1)}"
    return f"{several}after {steps} of the last part{', not exact' * (not exact)}"


def wanted(header: Header, only: Sequence[str]) -> list[int] | None:
    """The numbers of the images that --only names; None for all.

    Raises:
        DdpmError: there is no such image.
    """
    if not only:
        return None
    known = {name: number for number, name in enumerate(header.names or ())}
    found = []
    for word in only:
        number = known.get(word, int(word) if word.isdecimal() and len(word) < 10 else -1)
        check(
            0 <= number < header.count,
            f"there is no image {word[:LONGEST]!r} in the file, which holds {header.count:,}; see "
            "`ddpm info FILE`",
        )
        found.append(number)
    return sorted(set(found))


def places(header: Header, only: list[int] | None, out: Path, named: bool) -> dict[int, Path]:
    """Where each image goes, by its number.

    Raises:
        DdpmError: one of them cannot be written there.
    """
    numbers = range(header.count) if only is None else only
    if named and header.names is not None and out.suffix.lower() != ".png":
        names = written_names(header.names)
        return dict(zip(numbers, image_paths(out, [names[i] for i in numbers]), strict=True))
    return dict(zip(numbers, image_paths(out, [numbered(i) for i in numbers]), strict=True))


def marks(
    model: Ddpm, name: str, path: str, data: bytes, args: Decompress, number: int | None
) -> dict[str, str]:
    """The text of an image of a part, whose details are the model's; its number, if there are
    several."""
    words = ("decompress", name, path, "--bytes", str(len(data)), "--reconstruct", args.reconstruct)
    one = () if number is None else ("--only", str(number))
    given = shlex.split(str(args.given))
    return Provenance.of(model, name, (*words, *one, *given), bytes=len(data)).chunks()


def read(path: str) -> bytes:
    """All of a file, of a pipe, or of what comes in (-)."""
    if path == "-":
        check(sys.stdin is not None, "nothing can come in (-), for the standard input is closed")
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
        return data[: max(round(len(data) * fraction), 1)]
    return data[:size]
