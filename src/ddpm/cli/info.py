"""`ddpm info RUN|PICTURE|FILE|PRESET`: what a model is, where a picture comes from, what a
compressed file holds, or what a run of a preset will cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddpm.cli.about_archive import about_archive, is_archive
from ddpm.cli.outcome import tell
from ddpm.cli.parse import positional, say
from ddpm.cli.run_cost import about_preset
from ddpm.data.listing import readable_kinds
from ddpm.errors import DdpmError, check
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.networks.activations import layer_names
from ddpm.pretrained import pretrained
from ddpm.provenance import Provenance, fingerprint, read_provenance
from ddpm.registry import names
from ddpm.runs.folder import RunFolder, find_checkpoint
from ddpm.runtime.paths import exists, user_path

LONGEST = 100  # characters of a value
USAGE = """usage: ddpm info RUN
       ddpm info PICTURE|FILE.npz [RUN]
       ddpm info FILE.ddpm
       ddpm info PRESET [OPTIONS]

Say what the model in a run or checkpoint is; or what a picture or a set of samples
says of its making, with the command that draws it again (from RUN); or what a file of
`ddpm compress` holds and needs; or what a run of a preset will cost on this machine,
for which a few training steps are timed. OPTIONS are those of `ddpm train PRESET`,
and with one of them a name means the preset. So it does behind --preset: `ddpm info
--preset my_package.my_preset`. Otherwise a run or a file of that name, or a model that
comes with the package, comes first.
"""
DRAW = (
    "sample",
    "inpaint",
    "figure",
    "decompress",
)  # commands whose --out is a picture or a folder of them


def run(argv: Sequence[str]) -> int:
    """Print the model's images, configuration and history, a picture's provenance, or the cost of a
    run of a preset."""
    arguments = list(argv)
    asked = arguments[:1] == ["--preset"]
    what = "a run, a checkpoint, a picture or a preset"
    name, rest = positional(arguments[1:] if asked else arguments, what, "info")
    if not name:
        print(USAGE)
        return 0
    here = name in pretrained() or exists(user_path(name))
    options = any(argument.startswith("-") for argument in rest)
    if asked or (name in names("preset") and (options or not here)):
        return about_preset(name, rest)
    if Path(name).suffix.lower() in {*readable_kinds(), ".npz"} and name not in pretrained():
        check(len(rest) <= 1, f"`ddpm info` takes a picture and a run; {rest[1:]} is too much")
        about_picture(user_path(name), rest[0] if rest else None)
        return 0
    if name not in pretrained() and is_archive(user_path(name)):
        check(not rest, f"`ddpm info` takes one file; {' '.join(rest)} is too much")
        about_archive(user_path(name))
        return 0
    check(not rest, f"`ddpm info` takes one run; {' '.join(rest)} is too much")
    if not here:
        refuse_unknown(name)
    about_model(name)
    return 0


def refuse_unknown(name: str) -> NoReturn:
    """Say what `ddpm info` can be asked about."""
    try:
        find_checkpoint(user_path(name))
    except DdpmError as error:
        presets = f"`ddpm info PRESET` says what a run will cost ({', '.join(names('preset'))})"
        raise DdpmError(f"{error}; {presets}") from error
    raise AssertionError


def about_model(name: str) -> None:
    """Print what the model in a run or a file is."""
    model = load(name, device="cpu")
    table = Table(title=escape(name), show_header=False)
    rows = model_rows(model)
    tell(**{key: value for key, value in rows})
    for key, value in rows:
        table.add_row(key, escape(value))
    pinned = [path.name for path in RunFolder(user_path(name)).pinned()]
    if pinned:
        table.add_row("kept for archives", ", ".join(pinned))
    Console().print(table)
    if name in names("preset"):
        say(
            f"{name} is also a preset: `ddpm info --preset {name}` says what a run of it would "
            "cost on this machine"
        )


def model_rows(model: Ddpm) -> list[list[str]]:
    """What a model is, and what its weights have been through: names and values."""
    error = model.denoising_error
    measured = "not measured" if error is None else f"measured on {error.images:,} images"
    rows = [
        ["images", str(model.format)],
        ["parameters", f"{model.num_parameters:,}"],
        ["layers", ", ".join(layer_names(model.network))],
        ["denoising error", measured],
        ["calibration", "measured" if error and error.calibration else "not measured"],
        ["spectral error", "measured" if error and error.spectral else "not measured"],
        ["fingerprint", fingerprint(model)],
    ]
    history = asdict(model.history)
    facts = history.pop("facts") or {}
    facts.pop("sample", None)
    history["images_seen"] = history.pop("images")
    groups = {**model.config.to_dict(), "images": facts, "history": history}
    if model.history.origin is not None:
        del groups["training"]  # it was elsewhere, and nobody said how
    for group, settings in groups.items():
        rows += [[f"{group}.{key}", shortened(value)] for key, value in settings.items()]
    return rows


def about_picture(path: Path, run: str | None) -> None:
    """Print where a picture comes from, and the command that draws it again.

    Raises:
        DdpmError: there is none, or it says nothing.
    """
    check(exists(path), f"{path} does not exist")
    found = read_provenance(path)
    if found is None:
        raise DdpmError(
            f"{path} does not say where it comes from: it was not made by ddpm, or saved again by "
            "a program that keeps no text, or made with --no-provenance"
        )
    tell(
        synthetic=found.synthetic,
        model=found.name,
        fingerprint=found.model,
        number=found.index,
        settings=found.settings,
        command=found.command,
        ddpm=found.version,
    )
    table = Table(title=escape(str(path)), show_header=False)
    table.add_row("origin", "synthetic: made by a diffusion model" if found.synthetic else "")
    table.add_row("model", escape(found.name))
    table.add_row("its fingerprint", found.model)
    if found.index is not None:
        table.add_row("number", str(found.index))
    for key, value in found.settings.items():
        table.add_row(escape(key), escape(shortened(value)))
    table.add_row("made by", f"ddpm {escape(found.version)}")
    Console().print(table)
    words = list(found.command)
    if not words:
        return
    place = 2 if words[0] in ("figure", "reproduce") else 1
    if run is not None and words[place : place + 1] == [found.name]:
        words[place] = run
    out = f" --out {path.name if found.index is None else 'FOLDER'}" * (words[0] in DRAW)
    say("to draw it again:", f"ddpm {shlex.join(words)}{out}", where(found, run))


def where(found: Provenance, run: str | None) -> str:
    """Whether the model that the command names is the one that made the picture."""
    name = found.name if run is None else run
    if name not in pretrained() and not exists(user_path(name)):
        return f"{name} is not here; `ddpm info PICTURE RUN` says whether RUN is that model"
    try:
        same = fingerprint(load(name, device="cpu")) == found.model
    except DdpmError as error:
        return f"{name} is no model here ({error})"
    return f"{name} is that model" if same else f"{name} is another model now, or was trained on"


def shortened(value: object) -> str:
    """A value for people: a thousand betas are not shown one by one."""
    text = f"{value:.1f}" if isinstance(value, float) and value > 100 else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
