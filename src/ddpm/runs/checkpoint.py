"""Checkpoints: safetensors files that describe themselves, written whole or not at all.

Tensors are named `network.*`, `ema.*`, `exp_avg.*` and `exp_avg_sq.*`; the metadata entry `ddpm`
is JSON with the configuration, the data facts, the step, the history and a checksum.
"""

from __future__ import annotations

from ddpm.runtime.atomic import atomically, check_room

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

from ddpm.runtime.atomic import check_room, sync_folder
from ddpm.errors import Damaged, DdpmError, check
from ddpm.pretrained import pretrained

FORMAT = 1
HEADER = 200  # bytes that the header of a file spends on a tensor, at most

log = logging.getLogger("ddpm")






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












