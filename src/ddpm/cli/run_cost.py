"""What a run of a preset will cost on this machine: the words of `ddpm info PRESET`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse
from ddpm.cli.progress import progress_bar
from ddpm.cli.train import expand_short_options, starting_point
from ddpm.config import Config
from ddpm.errors import check
from ddpm.runs.folder import KEEP
from ddpm.runtime.atomic import format_bytes
from ddpm.runtime.device import best_device
from ddpm.runtime.memory import free_memory
from ddpm.training.cost import Cost, StepTime, probe
from ddpm.training.throughput import peak_flops, with_prefix


@dataclass(frozen=True)
class Info:
    """Say what a run of a preset will cost on this machine; every value of the preset can be
    changed by an option, as with `ddpm train`.

    --data is short for --data.path, and --max-minutes for --training.max-minutes.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    seconds: float = 20.0
    """To spend on timing training steps, about; 0 times none."""


def about_preset(name: str, rest: Sequence[str]) -> int:
    """Time a few steps and print what a run costs.

    Raises:
        DdpmError: there is no such preset, or an option is wrong.
    """
    options = list(rest)
    for argument in options:
        check(
            argument.partition("=")[0] not in ("--resume", "--out"),
            f"`ddpm info {name}` is about a run that has not begun; leave "
            f"{argument.partition('=')[0]} out",
        )
    preset, about = starting_point(name, options, None)
    args = parse(Info, expand_short_options(options), f"info {name}", Info(preset), about=about)
    check(args.seconds >= 0, f"--seconds must be at least 0, got {args.seconds:g}")
    device = best_device()
    cost = Cost(args.config, device, free_memory(device))
    step = None
    if cost.most > 0 and args.seconds > 0:
        with progress_bar() as progress:
            cost, step = probe(cost, args.seconds, progress)
    table = Table(title=escape(f"a run of {name} on this machine"), show_header=False)
    told = [*rows(cost), *time_rows(cost, step, args.seconds)]
    tell(
        parameters=cost.parameters,
        checkpoint_bytes=cost.checkpoint,
        seconds=None if step is None else sum(cost.seconds(step)),
        **dict(told[:1]),
        words=dict(told),
    )
    for key, value in told:
        table.add_row(key, escape(value))
    Console().print(table)
    given = shlex.join(without(options, "--seconds"))
    data = "" if args.config.data.path else " --data PATH"
    finish(then={f"ddpm train {name}{data}{' ' * bool(given)}{given}": "to begin it"})
    return 0


def rows(cost: Cost) -> list[tuple[str, str]]:
    """What can be said without timing anything."""
    config, training = cost.config, cost.config.training
    side, colour = config.data.image_size, "in colour" if config.data.channels == 3 else "grey"
    path = config.data.path
    wanted = f"{path}, brought to" if path else "--data PATH, any form of docs/data.md, brought to"
    last = f", the last {format_bytes(cost.measured)} more" if cost.measured > 1e6 else ""
    return [
        ("images", f"{wanted} {side}x{side}, {colour}"),
        ("parameters", f"{cost.parameters:,}"),
        (
            "steps",
            f"{training.steps:,} of {training.batch_size} images: "
            f"{training.steps * training.batch_size:,} in all",
        ),
        (
            "a checkpoint",
            f"{format_bytes(cost.checkpoint)}{last}; {KEEP} are kept, and while one is written "
            f"{format_bytes((KEEP + 1) * cost.checkpoint + cost.measured)} are needed",
        ),
        ("memory", memory_words(cost)),
    ]


def memory_words(cost: Cost) -> str:
    """The estimate, how it is made, and what to do where it is too much."""
    memory, free, batch = cost.memory, cost.free, cost.config.training.batch_size
    if memory is None:
        return "not known: the network cannot be counted without running it"
    said = (
        f"{format_bytes(memory.of(cost.micro_batch))}, an estimate: the program, "
        f"{format_bytes(memory.state)} of weights, averages and the optimiser's state, and "
        f"{format_bytes(memory.an_image)} for each of {cost.micro_batch} images in {cost.precision}"
    )
    if free is None:
        return said
    said += f"; {format_bytes(free)} are free"
    if cost.fits:
        return said
    if cost.parts is None:
        return f"{said}, in which not even one image fits"
    small = format_bytes(memory.of(batch // cost.parts))
    return f"{said}. It does not fit; --training.accumulate {cost.parts} does ({small})"


def time_rows(cost: Cost, step: StepTime | None, seconds: float) -> list[tuple[str, str]]:
    """What timing says, and how it was done."""
    training = cost.config.training
    where = f"{processor(cost.device)}, {cost.precision}"
    if step is None:
        reason = "not asked for" if seconds == 0 else "not even one image fits into memory"
        return [("time", f"not measured on {where}: {reason}")]
    a_step = step.of(training.batch_size)
    rate = training.batch_size / a_step
    speed = f"{duration(a_step)}: {rate:,.3g} images/s"
    if cost.flops is not None:
        speed += f", {with_prefix(rate * cost.flops)}FLOP/s"
        peak = peak_flops(cost.device, cost.precision)
        speed += f", MFU {rate * cost.flops / peak:.0%}" if peak else ""
    steps, more = cost.seconds(step)
    whole = f"{duration(steps + more)}, of which {duration(more)} for grids of samples, their "
    whole += "bits/dim, the denoising error and the last stage at the end"
    if training.max_minutes is not None and steps + more > 60 * training.max_minutes:
        reached = int(60 * training.max_minutes / (steps + more) * training.steps)
        whole += f"; --max-minutes {training.max_minutes:g} ends it near step {reached:,}"
    times = "once" if step.repeats == 1 else f"{step.repeats} times"
    how = f"a step of {step.images} random image{'s' * (step.images > 1)}, timed {times}"
    if step.images != training.batch_size:
        how += (
            f"; its {duration(step.an_image)} an image, and {duration(step.fixed)} a step for the "
        )
        how += f"optimiser and averages, give the whole batch of {training.batch_size}"
    if training.compile:
        how += "; without torch.compile, which makes the run faster"
    return [("a step", speed), ("the whole run", whole), ("where", where), ("how", how)]


def processor(device: torch.device) -> str:
    """What computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU with {threads} thread{'s' * (threads > 1)}"


def duration(seconds: float) -> str:
    """A time for people who plan: two digits and the unit that suits."""
    units = ((1e-3, "ms", 1), (1, "s", 100), (60, "minutes", 6000), (3600, "hours", 48 * 3600))
    for size, unit, most in units:
        if seconds < most:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{two_digits(seconds / 86_400)} days"


def two_digits(value: float) -> str:
    """Rounded to two digits, without an exponent."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def without(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if not skip and flag != option:
            kept.append(argument)
        skip = not skip and flag == option and not equals
    return kept
