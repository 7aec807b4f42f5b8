"""A trained model from its file, by path or by name."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ddpm.codec import Coding, Header
from ddpm.codec.coding import PREFIX as CODING
from ddpm.config import Config
from ddpm.data.images import ImageFormat
from ddpm.diffusion.learned import without_schedule
from ddpm.diffusion.schedule import schedule_from_betas
from ddpm.errors import DdpmError, check
from ddpm.interop.diffusers import is_diffusers
from ddpm.interop.source import read_foreign
from ddpm.likelihood.denoising_error import PREFIX, DenoisingError
from ddpm.likelihood.held_out import PREFIX as HELD_OUT
from ddpm.likelihood.held_out import HeldOut
from ddpm.model import Ddpm
from ddpm.pretrained import pretrained
from ddpm.runs.checkpoint import TRAINING, Tensors, load_checkpoint, save_checkpoint
from ddpm.runs.folder import RunFolder, load_newest, name_beside
from ddpm.runs.history import History
from ddpm.runs.pins import may_be_needed
from ddpm.runtime.atomic import to_json, write_text
from ddpm.runtime.device import Precision, best_device
from ddpm.runtime.paths import user_path

log = logging.getLogger("ddpm")

RUNS = Path("runs")  # where commands put runs

# What the names of a checkpoint's tensors begin with.
MEASURED = (PREFIX, CODING, HELD_OUT)
KNOWN = ("ema.", "diffusion.betas", *MEASURED, *(f"{prefix}." for prefix in TRAINING))


def model_from_checkpoint(tensors: Tensors, metadata: dict[str, Any], path: Path) -> Ddpm:
    """Build the model that a checkpoint describes, with its averaged weights.

    Raises:
        DdpmError: it needs a kind that is not registered, or does not hold what it describes.
    """
    try:
        image_format = ImageFormat(**metadata["images"])
        config = Config.from_dict(metadata["config"])
        network = config.build_network(image_format.shape)
        weights = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
        network.load_state_dict(without_schedule(weights))
        for name in tensors:
            check(name.startswith(KNOWN), f"'{name}' is nothing that this version of ddpm knows")
        diffusion = config.diffusion.build()
        if "diffusion.betas" in tensors:  # not in format 1
            schedule = schedule_from_betas(tensors["diffusion.betas"].numpy())
            diffusion = replace(diffusion, schedule=schedule)
        history = History.read(metadata["history"])
        measured = DenoisingError.from_tensors(tensors)
        coding = Coding.from_tensors(tensors)
        held_out = HeldOut.from_tensors(tensors)
    except DdpmError as error:
        raise DdpmError(f"{path} cannot be loaded: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DdpmError(f"{path} does not hold the model that it describes ({reason})") from error
    network.requires_grad_(False)
    return Ddpm(config, image_format, network, diffusion, history, measured, coding, held_out)


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
) -> Ddpm:
    """Load a trained model.

    Args:
        path: a run's folder (its newest good checkpoint is taken), a safetensors file, the name of
            a model that comes with the package, or a folder in diffusers' layout, which is
            converted in memory.
        device: where to put it; a GPU if there is one by default.
        precision: of the network, fp32 or bf16; what its configuration says by default, but for
            bf16 on a CPU, where it is auto: fp32, and pictures in the faster of the two.

    Raises:
        DdpmError: there is nothing there, or it is damaged, foreign, or needs a module to be
            imported first.
    """
    return load_with_file(path, device, precision)[0]


def load_with_file(
    path: str | Path,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
) -> tuple[Ddpm, Path]:
    """The same, and the file (of diffusers' layout the folder) that the model was read from."""
    file = user_path(path)
    if file.is_dir() and not RunFolder(file).checkpoints() and is_diffusers(file):
        model = converted(file)
    else:
        file, tensors, metadata = load_newest(file)
        model = model_from_checkpoint(tensors, metadata, file)
    model = model.to(device or best_device())
    if precision is None and model.precision == "bf16" and model.device.type == "cpu":
        precision = "auto"  # which a GPU may have set, and here it may take ten times as long
    return model if precision is None else replace(model, precision=precision), file


def converted(folder: Path) -> Ddpm:
    """The model of a folder in diffusers' layout; what was made of it is said."""
    found = read_foreign(str(folder))
    for note in found.notes:
        log.warning("%s", note)
    log.warning(
        "%s is in diffusers' layout and was converted in memory; `ddpm import` keeps it as a run, "
        "which can be measured once and then compress too",
        folder,
    )
    return found.model


def load_for_file(
    path: str | Path | None,
    header: Header,
    label: int | str | None = None,
    guidance: float = 1.0,
) -> tuple[Ddpm, str]:
    """The model that a compressed file needs.

    Args:
        path: see `load`; of a run the checkpoint that fits is taken, whichever it is. None for any
            model that comes with the package, or of the runs in `runs`.
        header: of the file.
        label, guidance: what the model was given (`Ddpm.given`) when the file was made.

    Returns:
        The model, and what it is called. Where a path is given and none of it fits, the newest,
        which `decompress` then says.

    Raises:
        DdpmError: there is no model, or it has no such class.
    """
    if path is not None:
        model, file = load_with_file(path)
        model = model.given(label, guidance)
        files = [file, *checkpoints_beside(file)] if user_path(path).is_dir() else [file]
        return _fitting(files, header, label, guidance) or model, str(path)
    for file in files_here():
        fitting = _fitting([file], header, label, guidance)
        if fitting is not None:
            return fitting, file.stem if file in pretrained().values() else str(file)
    raise DdpmError(
        f"no model here fits the file, neither those that come with the package nor the runs in "
        f"{RUNS.absolute()}; name the one it was compressed with (`ddpm decompress RUN FILE`), and "
        "the class and the guidance, if it was given any (--class, --guidance)"
    )


def files_here() -> list[Path]:
    """Where `load_for_file` looks if no path is given: models that come with the package, and the
    checkpoints of the runs in `runs`."""
    runs = [RunFolder(folder) for folder in sorted(RUNS.glob("*"))]
    files = [*pretrained().values(), *[file for run in runs for file in checkpoints_of(run)]]
    return list(dict.fromkeys(files))


def checkpoints_beside(file: Path) -> list[Path]:
    """The other checkpoints of the run of a checkpoint; see `checkpoints_of`."""
    run = RunFolder.of(file)
    return [] if run is None else checkpoints_of(run)


def checkpoints_of(run: RunFolder) -> list[Path]:
    """Those that archives need, then the newest first."""
    try:
        pinned = run.pinned()
    except DdpmError as error:
        log.warning("%s", error)
        pinned = []
    return [*pinned, *reversed(run.checkpoints())]


def _fitting(
    files: Sequence[Path], header: Header, label: int | str | None, guidance: float
) -> Ddpm | None:
    """The first model whose fingerprint a file has."""
    for file in dict.fromkeys(files):
        with contextlib.suppress(DdpmError):  # damaged, not measured, or without this class
            candidate = load(file).given(label, guidance)
            if header.fits(candidate.for_codec().fingerprint):
                return candidate
    return None


def store_measured(model: Ddpm, file: Path) -> Path:
    """Add what was measured of a model, and its last stage, to the file it was loaded from.

    Where the file says nothing of the images it was trained on, what the model knows of them now is
    added too, there and then in the `config.json` of the run, if there is one. A file that is
    pinned by now stays as it is, and the model is saved beside it.

    Args:
        model: just measured, for the null class if it knows classes.
        file: see `load_with_file`.

    Returns:
        The file that holds it.

    Raises:
        DdpmError: a file cannot be written; it stays as it was.
    """
    assert model.denoising_error is not None
    assert model.label is None
    tensors, metadata = load_checkpoint(file, training=True)
    described = {key: metadata[key] for key in ("config", "images", "history")}
    facts, run = model.history.facts, RunFolder.of(file)
    adopted = facts is not None and described["history"].get("facts") is None
    if facts is not None and adopted:
        described["history"] |= {"data": model.history.data, "facts": asdict(facts)}
        described["config"]["data"]["path"] = model.config.data.path
    kept = {name: value for name, value in tensors.items() if not name.startswith(MEASURED)}
    parts = [part for part in (model.denoising_error, model.coding, model.held_out) if part]
    for part in parts:
        kept |= part.tensors()
    if may_be_needed(file):
        model.save(beside := name_beside(file, "measured"))
        return beside
    save_checkpoint(file, kept, described)
    if adopted and run is not None and run.config.is_file():
        said: dict[str, Any] = {}
        with contextlib.suppress(TypeError, ValueError):  # a damaged one is written anew
            said = dict(json.loads(run.config.read_bytes()))
        said |= {**described["config"], "images": described["history"]["facts"]}
        write_text(run.config, to_json(said, indent=2) + "\n")
    return file
