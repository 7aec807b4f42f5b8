"""`ddpm train PRESET`: train a model."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ddpm.cli.data import open_split
from ddpm.cli.parse import SHORT, as_flags, parse, positional, say
from ddpm.cli.progress import progress_bar
from ddpm.config import Config, DataConfig
from ddpm.data import ImageSource
from ddpm.errors import DdpmError, check
from ddpm.registry import names
from ddpm.runs.folder import RunFolder
from ddpm.runtime import parallel
from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import get_preset


@dataclass(frozen=True)
class Train:
    """Train a model from a preset; every value of the preset can be changed by an option.

    --data is short for --data.path, and --max-minutes for --training.max-minutes.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    out: Path | None = None
    """The run's folder; runs/PRESET by default."""
    resume: bool = False
    """Resume from the newest checkpoint in --out."""
    dry_run: bool = False
    """Print the full configuration and the parameter count, and stop."""


def run(argv: Sequence[str]) -> int:
    """Parse, train, say what was made."""
    presets = f"a preset ({', '.join(names('preset'))}, or my_package.my_preset)"
    name, rest = positional(argv, presets, "train")
    preset = get_preset(name or "digits")
    args = parse(Train, expand_short_options(rest), f"train {name or 'PRESET'}", Train(preset))
    config, out = args.config, args.out or Path("runs") / name
    parameters = f"{count_parameters(config):,} parameters"
    if args.dry_run:
        say(json.dumps(config.to_dict(), indent=2), parameters)
        return 0
    check(
        args.resume or not RunFolder(out).checkpoints(),
        f"{out} already holds a run; add --resume to go on with it, or choose another --out",
    )
    with parallel.agreement():
        source = open_split(config.data, "train")
        held_out = open_held_out(config.data)
    say(
        f"{len(source):,} images of {source.name}, {parameters}, {config.training.steps:,} steps "
        f"of {config.training.batch_size}; writing to {out}"
    )
    with progress_bar() as progress:
        result = train(
            config, source, out, resume=args.resume, held_out=held_out, progress=progress
        )
    again = " ".join(["ddpm train", name, *(a for a in rest if a != "--resume"), "--resume"])
    return conclude(result, out, again)


def count_parameters(config: Config) -> int:
    """Of the network, for which it need not hold any numbers; also sees that it can be built."""
    shape = (config.data.channels, config.data.image_size, config.data.image_size)
    try:
        with torch.device("meta"):
            network = config.build_network(shape)
    except RuntimeError:  # of PyTorch: somebody's own network looks at its numbers
        network = config.build_network(shape)
    return sum(parameter.numel() for parameter in network.parameters())


def expand_short_options(argv: Sequence[str]) -> list[str]:
    """The arguments with the short names of options in full."""
    full = {short: f"--{setting}" for setting, short in SHORT.items()}
    parts = (argument.partition("=") for argument in argv)
    return [full.get(name, name) + equals + value for name, equals, value in parts]


def conclude(result: TrainingResult, out: Path, again: str) -> int:
    """Say how the run ended and what to do next; the exit code."""
    if result.stopped is None:
        say(
            f"trained {result.step:,} steps in {result.seconds / 60:.1f} minutes: "
            f"{result.checkpoint}",
            f"draw from it: ddpm sample {out}",
        )
        return 0
    say(
        f"stopped by {result.stopped} at step {result.step:,}, saved as {result.checkpoint}",
        f"resume with: {again}",
    )
    if result.stopped == "max_minutes":
        return 0
    return 128 + signal.Signals[result.stopped].value


def open_held_out(data: DataConfig) -> ImageSource | None:
    """Used to estimate bits/dim during training; None, with a notice, if there are none."""
    try:
        return open_split(data, "test")
    except DdpmError as error:
        say(f"no bits/dim while training: {as_flags(str(error))}")
        return None
