"""`ddpm train PRESET`: train a model."""

from __future__ import annotations

import itertools
import json
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ddpm.cli.data import open_split
from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import SHORT, as_flags, parse, positional, say, typed
from ddpm.cli.progress import progress_bar
from ddpm.config import Config, DataConfig
from ddpm.data import ImageSource
from ddpm.data.content import copies, in_memory
from ddpm.data.open import NoHeldOut
from ddpm.errors import check
from ddpm.registry import names
from ddpm.runs.folder import RunFolder
from ddpm.runs.settings import stored_config
from ddpm.runtime import parallel
from ddpm.runtime.paths import user_path
from ddpm.training.loop import TrainingResult, train
from ddpm.training.presets import get_preset
from ddpm.training.proposal import propose

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class Train:
    """Train a model from a preset; every value of the preset can be changed by an option.

    --data is short for --data.path, and --max-minutes for --training.max-minutes.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    out: Path | None = None
    """The run's folder; runs/PRESET by default."""
    resume: bool = False
    """Go on from the newest checkpoint in --out, with the settings of that run."""
    other_images: bool = False
    """Resume although the images are not those that the run was trained on so far."""
    check_duplicates: bool = False
    """Count held-out images that are also trained on, even in a set that does not fit in memory:
    reads all of it."""
    dry_run: bool = False
    """Print the full configuration and the parameter count, and stop."""


def run(argv: Sequence[str]) -> int:
    """Parse, train, say what was made."""
    name, rest, resumed = which_run(argv)
    preset, about = starting_point(name, rest, resumed)
    args = parse(
        Train, expand_short_options(rest), f"train {name or 'PRESET'}", Train(preset), about=about
    )
    config = args.config
    out = resumed or (user_path(args.out) if args.out else Path("runs") / name)
    resume = args.resume or resumed is not None
    parameters = f"{count_parameters(config):,} parameters"
    if args.dry_run:
        tell(config=config.to_dict(), parameters=count_parameters(config))
        say(json.dumps(config.to_dict(), indent=2), parameters)
        return 0
    check(
        resume or not RunFolder(out).checkpoints(),
        f"{out} already holds a run; add --resume to go on with it, or choose another --out",
    )
    with parallel.agreement():
        source = open_split(config.data, "train")
        held_out = open_held_out(config.data)
        told = duplicates(source, held_out, args.check_duplicates)
    taken = f"{len(source):,} images of {source.name}"
    kept = "none held out" if held_out is None else f"{len(held_out):,} held out"
    say(
        f"{taken}, {kept}, {parameters}, {config.training.steps:,} steps of "
        f"{config.training.batch_size}; writing to {out}",
        *told,
    )
    with progress_bar() as progress:
        result = train(
            config,
            source,
            out,
            resume=resume,
            held_out=held_out,
            other_images=args.other_images,
            progress=progress,
        )
    learns = config.diffusion.variance_type.startswith("learned")
    return conclude(result, out, name, not learns and config.training.last_stage_steps != 0)


def which_run(argv: Sequence[str]) -> tuple[str, list[str], Path | None]:
    """The preset that is named, the options, and the run that `--resume RUN` names.

    Both `ddpm train --resume RUN` and `ddpm train PRESET --out RUN --resume` go on with a run.
    """
    arguments = list(argv)
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag != "--resume":
            continue
        after = arguments[i + 1] if i + 1 < len(arguments) else "-"
        if equals or not after.startswith("-"):
            rest = arguments[:i] + arguments[i + (1 if equals else 2) :]
            run = user_path(value if equals else after)
            name = rest.pop(0) if rest and not rest[0].startswith("-") else ""
            check(
                not any(option.partition("=")[0] == "--out" for option in rest),
                "--resume RUN says already where to write; leave --out out",
            )
            return name, rest, run
    check(arguments != ["--resume"], "--resume needs the folder of a run: ddpm train --resume RUN")
    presets = f"a preset ({', '.join(names('preset'))}, or my_package.my_preset)"
    name, rest = positional(arguments, presets, "train")
    return name, rest, None


def starting_point(name: str, rest: list[str], resumed: Path | None) -> tuple[Config, str]:
    """The settings that options change: those of the run that is gone on with, else the preset's;
    and a sentence for --help that says whose they are."""
    options = expand_short_options(rest)
    if resumed is None and "--resume" in options and "--help" not in options:
        resumed = value_of("--out", options) or Path("runs") / name
    if name and resumed is not None:
        get_preset(name)  # a name that there is not must not be passed over
    if resumed is not None:
        say(f"going on with {resumed}, with its own settings")
        return stored_config(RunFolder(resumed)), f"The defaults shown are those of {resumed}."
    shown = name or "digits"
    about = f"The defaults shown are those of the preset {shown}; every preset has its own."
    preset = get_preset(shown)
    if shown != "images":
        return preset, about
    path = value_of("--data.path", options)
    if path is None:
        check(bool({"--help", "-h"} & {*rest}), "the preset images needs --data FOLDER")
        return preset, f"{about} For your own images they are proposed: give --data."
    proposed, said = propose(str(path), preset)
    say(said)
    return proposed, f"The defaults shown are those of the preset images for {path}."


def value_of(option: str, arguments: Sequence[str]) -> Path | None:
    """What is given for an option, as a path."""
    for argument, after in itertools.pairwise([*arguments, ""]):
        flag, equals, value = argument.partition("=")
        if flag == option:
            return user_path(value if equals else after)
    return None


def duplicates(source: ImageSource, held_out: ImageSource | None, always: bool) -> list[str]:
    """A sentence about held-out images that are also trained on, if there are any.

    In sets that do not fit in memory they are looked for when asked only.
    """
    if held_out is None or not (always or (in_memory(source) and in_memory(held_out))):
        return []
    count = copies(source, held_out)
    if count == 0:
        return ["no held-out image is also trained on"] if always else []
    log.warning("%s of the %s held-out images are also trained on", count, len(held_out))
    return []


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


def conclude(result: TrainingResult, out: Path, preset: str, compresses: bool) -> int:
    """Say how the run ended and what to do next; the exit code."""
    quoted = typed(out)
    # A preset of one's own imports what the run is made of.
    named = f"{preset} " if "." in preset else ""
    tell(step=result.step, seconds=result.seconds, stopped=result.stopped)
    if result.stopped is None:
        then = {
            f"ddpm sample {quoted}": "draw from it",
            f"ddpm evaluate {quoted} --bpd": "bits/dim of held-out images",
        }
        if compresses:
            then[f"ddpm compress {quoted} FOLDER -o FILE.ddpm"] = "images into one file"
        finish(
            f"trained {result.step:,} steps in {result.seconds / 60:.1f} minutes: "
            f"{result.checkpoint}",
            made=[result.checkpoint],
            then=then,
        )
        return 0
    finish(
        f"stopped by {result.stopped} at step {result.step:,}, saved as {result.checkpoint}",
        made=[result.checkpoint],
        then={f"ddpm train {named}--resume {quoted}": "resume with"},
    )
    if result.stopped == "max_minutes":
        return 0
    return 128 + signal.Signals[result.stopped].value


def open_held_out(data: DataConfig) -> ImageSource | None:
    """Used to estimate bits/dim during training; None, with a notice, if there are none."""
    try:
        return open_split(data, "test")
    except NoHeldOut as error:
        say(f"no bits/dim while training: {as_flags(str(error))}")
        return None
