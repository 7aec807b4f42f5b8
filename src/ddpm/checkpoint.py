"""Checkpoints: safetensors files that describe themselves, written whole or not at all.

Tensors are named `network.*`, `ema.*`, `exp_avg.*` and `exp_avg_sq.*`; the metadata entry `ddpm`
is JSON with the configuration, the data facts, the step, the history and a checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddpm.disk import check_room, sync_folder
from ddpm.errors import Damaged, DdpmError, check
from ddpm.pretrained import pretrained

FORMAT = 1
KEEP = 2  # checkpoints of a run that are kept
HEADER = 200  # bytes that the header of a file spends on a tensor, at most

log = logging.getLogger("ddpm")


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it into place.

    Raises:
        DdpmError: no space, or no right to write there; nothing half-written is left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DdpmError(
            f"cannot write {path} ({reason}); free some space or choose another place with --out"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already, or could never be made
            partial.unlink()


def check_writable(folder: Path) -> None:
    """Make `folder` and see that files can be written there, before hours are spent on one.

    Raises:
        DdpmError: they cannot.
    """
    trial = folder / ".writable"
    atomically(trial, lambda partial: partial.write_text(""))
    trial.unlink()


def checksum(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """A fingerprint of the description and of all names and contents, in any order."""
    described = {key: value for key, value in metadata.items() if key != "checksum"}
    text = json.dumps(described, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write `tensors` and `metadata` to `path`, atomically.

    Raises:
        DdpmError: there is no room for it, or no right to write there.
    """
    size = sum(tensor.nbytes + HEADER for tensor in tensors.values())
    check_room(path, size)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {"format": FORMAT, **metadata}
    header = {"ddpm": json.dumps({**described, "checksum": checksum(plain, described)})}
    atomically(path, lambda partial: save_file(plain, partial, metadata=header))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and metadata of a checkpoint, verified against its checksum.

    Raises:
        Damaged: the file is truncated, damaged or foreign.
        DdpmError: it is missing, cannot be read, or is of a newer format.
    """
    check(path.is_file(), f"there is no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Damaged(
            f"{path} is damaged or is no checkpoint ({error}); use an older one or train again"
        ) from error
    except OSError as error:
        raise DdpmError(f"cannot read {path} ({error})") from error
    if "ddpm" not in header:
        raise Damaged(f"{path} was not written by ddpm: it does not describe its model")
    try:
        metadata = json.loads(header["ddpm"])
    except json.JSONDecodeError as error:
        raise Damaged(f"the description inside {path} is damaged ({error})") from error
    if not isinstance(metadata, dict):
        raise Damaged(f"the description inside {path} is not one of ours")
    check(
        metadata.get("format") == FORMAT,
        f"{path} has checkpoint format {metadata.get('format')}, and this version of ddpm reads "
        f"format {FORMAT}; use the version that wrote it",
    )
    if metadata.get("checksum") != checksum(tensors, metadata):
        raise Damaged(
            f"{path} is damaged: its contents do not match its checksum; use an older checkpoint"
        )
    return tensors, metadata


def checkpoint_path(run: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of `step`."""
    return run / "checkpoints" / f"step-{step:08d}.safetensors"


def checkpoints(run: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def find_checkpoint(path: Path) -> Path:
    """The file that `path` means: itself, the newest checkpoint of a run folder, or a model that
    comes with the package.

    Raises:
        DdpmError: there is no such file, folder or model, or no checkpoint in the folder.
    """
    if path.is_file():
        return path
    found = checkpoints(path)
    if not found and str(path) in pretrained():
        return pretrained()[str(path)]
    check(
        path.exists(),
        f"{path} does not exist; train a model first (ddpm train digits), or take one that comes "
        "with the package (ddpm models)",
    )
    check(len(found) > 0, f"{path} holds no checkpoint; is it the folder of a training run?")
    return found[-1]


def load_newest(path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The file that `path` means (see `find_checkpoint`) with its tensors and metadata.

    Of a run folder it is the newest checkpoint that is whole; a notice names the damaged ones.

    Raises:
        Damaged: the named file, or every checkpoint of the run, is damaged.
        DdpmError: there is none.
    """
    damaged: list[Damaged] = []
    for file in reversed(checkpoints(path) or [find_checkpoint(path)]):
        try:
            tensors, metadata = load_checkpoint(file)
        except Damaged as error:
            damaged.append(error)
            continue
        for problem in damaged:
            log.warning("%s; %s is used instead", str(problem).split(";")[0], file)
        return file, tensors, metadata
    raise damaged[0]


def rotate(run: Path, written: Path, keep: int = KEEP) -> None:
    """Remove all but `keep` checkpoints of a run: the one just `written` and those before it.

    Newer files go too: the run went on from an older one because they were damaged, and counted as
    the newest they would push out the good ones.
    """
    kept = [path for path in checkpoints(run) if path <= written][-keep:]
    for path in checkpoints(run):
        if path not in kept:
            path.unlink()
            errors_path(path).unlink(missing_ok=True)


def errors_path(checkpoint: Path) -> Path:
    """Where the errors measured of a checkpoint's model are kept (see `ddpm.analytic`)."""
    return checkpoint.with_name(f"errors-{checkpoint.name}")
