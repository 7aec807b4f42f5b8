"""`ddpm measure RUN`: measure a model's denoising error and store it in the model's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.data import open_for
from ddpm.cli.parse import parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.errors import check
from ddpm.likelihood.denoising_error import IMAGES
from ddpm.loading import load_with_file, store_denoising_error
from ddpm.pretrained import pretrained
from ddpm.runs.folder import RunFolder
from ddpm.runtime import parallel
from ddpm.runtime.atomic import check_writable
from ddpm.runtime.paths import exists, user_path


@dataclass(frozen=True)
class Measure:
    """Measure the denoising error of a trained model, which a complete run has measured already.

    An optimal trajectory, the analytic variance and compression need it.
    """

    data: Annotated[str | None, tyro.conf.arg(name="data")] = None
    """Images to measure on; what the model was trained on by default."""
    images: int = IMAGES
    """How many of them."""
    batch_size: int = 256
    """Images in one network call."""
    out: Path | None = None
    """A file for the measured model; by default its own file is changed."""


def run(argv: Sequence[str]) -> int:
    """Parse, measure, store, say where."""
    name, rest = positional(argv, "a run or checkpoint", "measure")
    args = parse(Measure, rest, f"measure {name or 'RUN'}", Measure())
    check(args.images >= 1, f"--images must be at least 1, got {args.images}")
    check(args.batch_size >= 1, f"--batch-size must be at least 1, got {args.batch_size}")
    model, measured = load_with_file(name)
    file = measured if args.out is None else user_path(args.out)
    run_folder = RunFolder.of(file)
    check(
        file not in pretrained().values(),
        f"{name} comes with the package and is not changed; give --out FILE",
    )
    check(
        args.out is not None
        or run_folder is None
        or file.name not in {path.name for path in run_folder.pinned()},
        f"{file} is needed by an archive and is not changed; give --out FILE",
    )
    check(
        args.out is None or not exists(file),
        f"{file} is there already and is not overwritten; choose another --out",
    )
    parallel.on_main(lambda: check_writable(file.parent))  # before the time is spent
    source = open_for(model, args.data, "train")
    with progress_bar() as progress:
        error = model.measure(
            source, count=args.images, batch_size=args.batch_size, progress=progress
        )
    if args.out:
        parallel.on_main(lambda: model.save(file))
    else:
        parallel.on_main(lambda: store_denoising_error(model, file))
    say(
        f"denoising error at {len(error.timesteps)} timesteps, measured on {error.images:,} images "
        f"of {source.name}: in {file}"
    )
    return 0
