"""`ddpm compress RUN IMAGE|FOLDER -o FILE`: images into one file, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.data.exact_files import read_images
from ddpm.errors import check
from ddpm.loading import load
from ddpm.runtime.atomic import atomically


@dataclass(frozen=True)
class Compress:
    """Compress an image, or a folder of them, without loss."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The file to write."""
    steps: int | None = None
    """Network calls an image takes; chosen by the amount of data by default."""


def run(argv: Sequence[str]) -> int:
    """Parse, read, compress, write, say how small it became."""
    name, rest = positional(argv, "a run or checkpoint", "compress")
    path, rest = positional(rest, "an image or a folder after the run", "compress")
    args = parse(Compress, rest, f"compress {name or 'RUN'} {path or 'IMAGE|FOLDER'}")
    out = args.out.expanduser()
    check(not out.is_dir(), f"--out must be a file, and {out} is a folder")
    model = load(name)
    images = read_images(Path(path).expanduser(), model.format)
    with progress_bar() as progress:
        data = model.compress(images, steps=args.steps, progress=progress)
    atomically(out, lambda partial: partial.write_bytes(data))
    values = sum(image.numel() for image in images)
    say(
        f"{len(images):,} image{'s' * (len(images) > 1)} in {len(data):,} bytes, "
        f"{8 * len(data) / values:.3f} bits/dim: {out}"
    )
    return 0
