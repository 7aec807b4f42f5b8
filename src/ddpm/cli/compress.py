"""`ddpm compress RUN IMAGE|FOLDER -o FILE`: images into one file, without loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.given import Given
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, say, typed
from ddpm.cli.progress import progress_bar
from ddpm.codec import parse as parse_file
from ddpm.data.exact_files import ExactImages, read_images, some
from ddpm.errors import DdpmError, check
from ddpm.loading import files_here, load_with_file
from ddpm.provenance import is_marked
from ddpm.runs.pins import check_there, keep
from ddpm.runtime.atomic import atomically, check_writable
from ddpm.runtime.paths import exists, user_path

UNLIKE = "the model has not learned such images, for which another format is better"


@dataclass(frozen=True)
class Compress:
    """Compress an image, or a folder of them, without loss."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write."""
    steps: int | None = None
    """Network calls an image takes; those that cost least by default."""
    last_timestep: int | None = None
    """Where the diffusion path ends and the exact pixels are coded; by default further
    down than where the file is smallest, for better beginnings."""
    names: bool = True
    """Keep the names of a folder's images, with their folders below it."""
    given: Annotated[Given, tyro.conf.arg(name="")] = field(default_factory=Given)
    convert: bool = False
    """Store the 8-bit pictures of images that cannot be kept exactly; says what is lost."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, compress, write, say how small it became."""
    name, rest = positional(argv, "a run or checkpoint", "compress")
    path, rest = positional(rest, "an image or a folder after the run", "compress")
    args = parse(Compress, rest, f"compress {name or 'RUN'} {path or 'IMAGE|FOLDER'}")
    check(str(args.out) != "-", "an archive is not written to the standard output; name a file")
    out = user_path(args.out)
    replaced = is_replaced(out)
    root = user_path(path)
    check(exists(root), f"{root} does not exist")
    loaded, file = load_with_file(name)
    model = args.given.to(loaded)
    model.for_codec()  # nothing is kept for a model that cannot compress
    check_writable(out.parent)
    needed = keep(file)
    found = read_images(root, model.format, args.convert)
    check(
        out.resolve() not in {image.resolve() for image in found.paths},
        f"{out} is one of the images; choose another --out",
    )
    unmarked, named = lost(found), args.names and root.is_dir()
    with progress_bar() as progress:
        data = model.compress(
            found.images,
            names=relative_names(found.paths, root) if named else None,
            steps=args.steps,
            last_timestep=args.last_timestep,
            progress=progress,
        )
        check_there(file)
        atomically(out, lambda partial: partial.write_bytes(data))
    if found.converted:
        say(f"converted {len(found.converted):,}, losing: {some(found.converted)}")
    values = sum(image.numel() for image in found.images)
    tell(
        images=len(found.images),
        bytes=len(data),
        bits_per_dim=8 * len(data) / values,
        converted=len(found.converted),
        needs=file,
    )
    raw = math.ceil(values * math.log2(model.format.levels) / 8)
    finish(
        f"{len(found.images):,} image{'s' * (len(found.images) > 1)} in {len(data):,} bytes, "
        f"{8 * len(data) / values:.3f} bits/dim: {out}{' (replaced)' if replaced else ''}",
        *[f"the pixels alone have {raw:,} bytes: {UNLIKE}"] * (len(data) > raw),
        f"kept are the pixels{' and the names' * named}; not kept are "
        f"{'' if named else 'file names, '}dates and other metadata{unmarked}",
        needed + (f", and the options {args.given}" if str(args.given) else ""),
        made=[out],
        then={
            back(name, file, out, args.given): "get them back",
            f"ddpm info {typed(out)}": "what it holds",
        },
    )
    return 0


def relative_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """What images are called below a folder, on every system alike."""
    return [path.relative_to(folder).as_posix() for path in paths]


def lost(found: ExactImages) -> str:
    """Words about images whose provenance the archive does not keep."""
    marked = sum(map(is_marked, found.paths))
    if not marked:
        return ""
    return (
        f", nor what {marked:,} of the images say of the model that made them (`ddpm info IMAGE`): "
        "what is decompressed is no longer marked as synthetic"
    )


def is_replaced(out: Path) -> bool:
    """Whether there is an archive in the place of the new one.

    Raises:
        DdpmError: there is something else, which is not overwritten.
    """
    if not exists(out):
        return False
    check(not out.is_dir(), f"--out must be a file, and {out} is a folder")
    check(out.is_file(), f"--out must be a file, and {out} is none; choose another --out")
    try:
        parse_file(out.read_bytes())
    except DdpmError as error:
        raise DdpmError(
            f"{out} is there already, is no whole archive of this version and is not overwritten; "
            "choose another --out"
        ) from error
    return True


def back(name: str, file: Path, out: Path, given: Given) -> str:
    """The command that decodes a file, with the model if it would not be found."""
    found = False
    with contextlib.suppress(DdpmError):  # a run among them that cannot be read
        found = file.resolve() in {other.resolve() for other in files_here()}
    words = ["ddpm decompress", "" if found else typed(user_path(name)), typed(out), str(given)]
    return " ".join([*filter(None, words), "-o FOLDER"])
