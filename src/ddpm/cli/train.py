"""`ddpm train PRESET`: train a model."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddpm.cli.parse import parse, positional, say
from ddpm.config import Config, DataConfig
from ddpm.data import ImageSource, open_data
from ddpm.errors import DdpmError
from ddpm.runtime import parallel
from ddpm.training.presets import PRESETS, get_preset


@dataclass(frozen=True)
class Train:
    """Train a model from a preset; every value of the preset can be changed by an option."""

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    out: Path | None = None
    """The run's folder; runs/PRESET by default."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    dry_run: bool = False
    """Print the full configuration and the parameter count, and stop."""


def run(argv: Sequence[str]) -> int:
    """Parse, train, say what was made."""
    name, rest = positional(argv, f"a preset ({', '.join(PRESETS)})", "train")
    config = get_preset(name or "digits")
    args = parse(Train, rest, f"train {name or 'PRESET'}", Train(config))
    config, out = args.config, args.out or Path("runs") / name

    shape = (config.data.channels, config.data.image_size, config.data.image_size)
    network = config.network.build(shape, config.diffusion.build().learns_variance)
    if args.dry_run:
        say(json.dumps(config.to_dict(), indent=2), f"{network.num_parameters():,} parameters")
        return 0

    from ddpm.training.loop import train

    with parallel.agreement():
        source = open_data(config.data)
        held_out = open_held_out(config.data)
    say(
        f"{len(source):,} images of {source.name}, {network.num_parameters():,} parameters, "
        f"{config.training.steps:,} steps of {config.training.batch_size}; writing to {out}"
    )
    result = train(config, source, out, resume=args.resume, held_out=held_out)
    if result.stopped is None:
        say(
            f"trained {result.step:,} steps in {result.seconds / 60:.1f} minutes: "
            f"{result.checkpoint}",
            f"draw from it: ddpm sample {out}",
        )
        return 0
    again = " ".join(["ddpm train", name, *(a for a in rest if a != "--resume"), "--resume"])
    say(
        f"stopped by {result.stopped} at step {result.step:,}, saved as {result.checkpoint}",
        f"go on with: {again}",
    )
    if result.stopped == "max_minutes":
        return 0
    return 128 + signal.Signals[result.stopped].value


def open_held_out(data: DataConfig) -> ImageSource | None:
    """The held-out images, on which bits/dim are estimated meanwhile; None, said, without them."""
    try:
        return open_data(data, "test")
    except DdpmError as error:
        say(f"no bits/dim while training: {error}")
        return None
