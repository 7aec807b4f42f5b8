"""`ddpm import SOURCE --out RUN`: make a run of a model of another code base."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, typed
from ddpm.config import DiffusionConfig
from ddpm.errors import DdpmError, check
from ddpm.interop.foreign import Told
from ddpm.interop.source import read_foreign
from ddpm.model import Ddpm
from ddpm.runs.folder import RunFolder
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.paths import exists, user_path


@dataclass(frozen=True)
class Import:
    """Make a run of a model of another code base, which all commands then take.

    SOURCE is a folder in diffusers' layout (a pipeline, or its unet/ alone), a model of the Hugging
    Face hub (owner/name), or a file of weights (safetensors, or a pickle of tensors, of which no
    code is run) in the naming of the authors' code or of openai/improved-diffusion. What a source
    does not say can be told by the options; what it says itself cannot.
    """

    out: Path | None = None
    """The folder of the run; it must be new or empty."""
    image_size: int | None = None
    """Side of the images, where the source does not say it."""
    norm_groups: int | None = None
    """Groups of every GroupNorm, for files of weights; 32 by default."""
    heads: int | None = None
    """Heads of every attention, for improved-diffusion."""
    null_class: bool = False
    """The last class of a conditional network stands for none."""
    ignore: tuple[str, ...] = ()
    """Settings of diffusers' sampling that have no counterpart here and are left out; or
    rescale_timesteps, for networks of improved-diffusion that were trained without it."""
    diffusion: Annotated[DiffusionConfig, tyro.conf.arg(name="diffusion")] = field(
        default_factory=DiffusionConfig
    )


def run(argv: Sequence[str]) -> int:
    """Parse, read, write, say what was made of it."""
    source, rest = positional(argv, "a folder, a file of weights or a hub id", "import")
    args = parse(Import, rest, f"import {source or 'SOURCE'}", Import())
    if args.out is None:
        raise DdpmError("`ddpm import` needs --out, the folder of the run to make")
    out = user_path(args.out)
    check(
        not exists(out) or (out.is_dir() and not any(out.iterdir())),
        f"{out} is there already and is not overwritten; choose another --out",
    )
    for name, value in (("--image-size", args.image_size), ("--heads", args.heads)):
        check(value is None or value >= 1, f"{name} must be at least 1, got {value}")
    check(
        args.norm_groups is None or args.norm_groups >= 1,
        f"--norm-groups must be at least 1, got {args.norm_groups}",
    )
    typed_ones = {word.split("=")[0] for word in rest if word.startswith("--diffusion.")}
    names = {word.removeprefix("--diffusion.").replace("-", "_") for word in typed_ones}
    names = {name.removeprefix("no_") for name in names}
    told = Told(
        image_size=args.image_size,
        norm_groups=args.norm_groups,
        heads=args.heads,
        diffusion={name: getattr(args.diffusion, name) for name in names} or None,
        null_class=args.null_class,
        ignore=args.ignore,
    )
    found = read_foreign(source, told)
    write_run(found.model, RunFolder(out))
    tell(parameters=found.model.num_parameters, kind=found.kind, notes=found.notes)
    finish(*found.notes, *summary(found.model, source, found.kind, out), made=[out])
    return 0


def write_run(model: Ddpm, run: RunFolder) -> None:
    """The folder of a run of no steps: its one checkpoint, and its settings; all or nothing."""
    files, folders = [run.checkpoint(0), run.config], [run.checkpoint(0).parent]
    folders += [] if exists(run.path) else [run.path]
    try:
        model.save(run.checkpoint(0))
        write_text(run.config, to_json(model.config.to_dict(), indent=2) + "\n")
    except BaseException:
        for remove in (*(path.unlink for path in files), *(path.rmdir for path in folders)):
            with contextlib.suppress(OSError):
                remove()
        raise


def summary(model: Ddpm, source: str, kind: str, out: Path) -> list[str]:
    """What was made of the source, and what it still lacks."""
    diffusion = model.diffusion
    run = typed(out)
    lines = [
        f"imported {source} ({kind}): {model.num_parameters:,} parameters, images of "
        f"{model.format}; T = {diffusion.num_timesteps:,}, predicts {diffusion.prediction_type}, "
        f"variance {diffusion.variance_type}, x_0 "
        f"{'' if diffusion.clip_sample else 'not '}clipped: in {out}",
        f"draw with `ddpm sample {run}`",
    ]
    if model.format.height == model.format.width:
        needs = "the best few steps and bits/dim need that"
        needs = needs if diffusion.learns_variance else f"compression, {needs}"
        lines.append(f"`ddpm measure {run} --data IMAGES` tells it its images once; {needs}")
    return lines
