"""Folders in the layout of diffusers: a pipeline, or a network alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.interop.diffusers_scheduler import SCHEDULERS, read_scheduler
from ddpm.interop.diffusers_unet import naming_of, read_unet
from ddpm.interop.foreign import Foreign, Told, assemble
from ddpm.interop.settings import Settings, shown
from ddpm.interop.weights_file import read_weights
from ddpm.runtime.paths import exists

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
OURS = "ddpm.json"  # what diffusers has no place for
WEIGHTS = "diffusion_pytorch_model"
UNETS = ("UNet2DModel",)


def is_diffusers(path: Path) -> bool:
    """Whether a folder is in diffusers' layout."""
    if any(
        exists(path / name) for name in (INDEX, f"unet/{CONFIG}", f"unet_ema/{CONFIG}", SCHEDULER)
    ):
        return True
    try:
        return "_class_name" in json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return any(path.glob(f"{WEIGHTS}*"))  # a damaged one


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model lie.

    Args:
        unet: the folder of the network.
        scheduler: the file; None for a network alone.
        ours: the file with what diffusers has no place for, which need not be there.
        notes: what a user should know of the choice.
    """

    unet: Path
    scheduler: Path | None
    ours: Path
    notes: tuple[str, ...] = ()


def parts_of(path: Path) -> Parts:
    """The parts of a folder: a pipeline, with its parts in folders or all in one; a training
    checkpoint; or a network alone.

    Where nothing beside a network says its diffusion, the pipeline that it lies in does.

    Raises:
        DdpmError: the pipeline has other parts than a network and a scheduler.
    """
    unet, notes = unet_of(path)
    inner = path / "scheduler" / SCHEDULER
    scheduler = inner if exists(inner.parent) else path / SCHEDULER
    if exists(path / INDEX):
        check_index(Settings.of_file(path / INDEX))
        return Parts(unet, scheduler, path / OURS, notes)
    if exists(scheduler):
        return Parts(unet, scheduler, path / OURS, notes)
    for around in path.absolute().parents[:2]:  # of a checkpoint's network it is the second
        if exists(around / INDEX):
            found = parts_of(around)
            note = f"the scheduler is that of the pipeline around it, {found.scheduler}"
            return Parts(unet, found.scheduler, found.ours, (*notes, note))
    return Parts(unet, None, path / OURS, notes)


def unet_of(path: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder of the network in a folder, and what a user should know of the choice."""
    raw, averaged = path / "unet", path / "unet_ema"
    if exists(averaged):
        note = f"{path} holds raw and averaged weights; the averaged ones (unet_ema) are taken"
        return averaged, (note,) if exists(raw) else ()
    return (raw if exists(raw) else path), ()


def check_index(index: Settings) -> None:
    """Refuse pipelines of other parts than a `UNet2DModel` and a scheduler.

    Raises:
        DdpmError: there is another part, or one is missing.
    """
    named = {key: value for key, value in index.values.items() if not key.startswith("_")}
    lists = {key: value for key, value in named.items() if isinstance(value, list)}
    parts = {key: value for key, value in lists.items() if any(value)}
    index.pass_over(lists)
    index.finish()
    kind = shown(index.values.get("_class_name"))
    for name in ("unet", "scheduler"):
        check(name in parts, f"{index.where} ({kind}) has no {name}, so it is of no DDPM")
    others = sorted(set(parts) - {"unet", "scheduler"})
    check(
        not others,
        f"{index.where} ({kind}) has the part '{(others or [''])[0]}', and ddpm reads pipelines of "
        "a unet and a scheduler",
    )
    for name, classes in (("unet", UNETS), ("scheduler", SCHEDULERS)):
        check(
            parts[name] in [["diffusers", known] for known in classes],
            f"the {name} of {index.where} is {shown(parts[name])}, and ddpm reads "
            f"{' and '.join(classes)}",
        )


def weights_of(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The file of weights in a network's folder, and what a user should know of the choice.

    Raises:
        DdpmError: there is none, or only in several files.
    """
    found = sorted(p.name for p in folder.glob(f"{WEIGHTS}*") if not p.name.endswith(".json"))
    parts = [name for name in found if re.search(r"-\d+-of-\d+\.", name)]
    found = [name for name in found if name not in parts]
    indexed = any(folder.glob(f"{WEIGHTS}*.index.json"))
    check(
        bool(found) or not (parts or indexed),
        f"the weights in {folder} are in several files; save them in one",
    )
    averaged = [f"{WEIGHTS}.ema{suffix}" for suffix in (".safetensors", ".bin")]
    plain = [f"{WEIGHTS}{suffix}" for suffix in (".safetensors", ".bin")]
    for name in (*averaged, *plain):
        if name in found:
            note = f"of the weights in {folder} the averaged ones ({name}) are taken"
            return folder / name, (note,) if name in averaged and len(found) > 1 else ()
    check(
        len(found) == 1,
        f"{folder} holds {'several' if found else 'no'} weights ({WEIGHTS}.safetensors or .bin"
        f"{': ' + ', '.join(found) if found else ''}); put the file that is meant there",
    )
    return folder / found[0], (f"the weights are {found[0]}",)


def read_diffusers(path: Path, told: Told, origin: str) -> Foreign:
    """The model of a folder.

    Args:
        path: the folder.
        told: what it does not say.
        origin: what the model is called in its history.

    Raises:
        DdpmError: a part is missing, damaged, or has no counterpart, which is named.
    """
    parts = parts_of(path)
    unet = Settings.of_file(parts.unet / CONFIG)
    open_questions = {
        "diffusion": parts.scheduler is None,
        "image_size": unet.values.get("sample_size") is None,
    }
    names = [name for name, is_open in open_questions.items() if is_open]
    told.only(f"the folder {path}", "null_class", "ignore", *names)
    extra = Settings.of_file(parts.ours) if exists(parts.ours) else Settings({}, str(parts.ours))
    levels = extra.get("grey_levels", 256)
    class_names = tuple(extra.get("class_names", []))
    strings = all(isinstance(name, str) for name in class_names)
    check(strings, f"'class_names' in {extra.where} is {shown(class_names)}, not strings")
    null_class = extra.get("null_class", False) or told.null_class
    extra.finish()
    network, image_format, outputs = read_unet(unet, null_class, told.image_size)
    notes = [*parts.notes, *unet.notes]
    if parts.scheduler is None:
        check(not told.ignore, f"--ignore has no effect: {path} has no {SCHEDULER}")
        diffusion, note = told.papers_diffusion(image_format, outputs, path)
        notes.append(note)
    else:
        scheduler = Settings.of_file(parts.scheduler)
        diffusion = read_scheduler(scheduler, told.ignore)
        notes += scheduler.notes
    file, more = weights_of(parts.unet)
    tensors, _, chosen = read_weights(file)
    check(chosen is None, f"{file} holds more than the weights of one network ({chosen})")
    model = assemble(
        tensors,
        naming_of(tensors),
        network,
        diffusion,
        ImageFormat(*image_format.shape, levels),
        outputs,
        where=str(file),
        origin=origin,
        class_names=class_names,
    )
    return Foreign(model, "diffusers", (*notes, *more))
