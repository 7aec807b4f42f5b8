"""Checkpoints: safetensors files that describe themselves, written whole or not at all.

A file holds a *model*: its averaged weights `ema.*`, `diffusion.betas` and, once it was measured,
`denoising_error.*`. The file of a run also holds what training needs to go on: `network.*`,
`exp_avg.*`, `exp_avg_sq.*` and `momentum.*`. The metadata entry `ddpm` is JSON with the
configuration, the format of the images, the history, and a checksum of either part, so that the
model alone can be read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddpm.config import Config
from ddpm.data.foreign import what_it_is
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.errors import Damaged, DdpmError, check
from ddpm.runs import format1
from ddpm.runs.history import History
from ddpm.runtime.atomic import atomically, check_free_space
from ddpm.runtime.paths import exists

FORMAT = 2
TRAINING = ("network", "exp_avg", "exp_avg_sq", "momentum")  # prefixes of what only training needs
HEADER = 200  # bytes that the header of a file spends on a tensor, at most
CHECKSUMS = ("checksum", "training_checksum")
Tensors = dict[str, Tensor]


def for_training(name: str) -> bool:
    """Whether a tensor of a checkpoint is needed only to go on training."""
    return name.split(".", 1)[0] in TRAINING


def checksum(tensors: Tensors, description: object = None) -> str:
    """A fingerprint of a description and of all names and contents, in any order."""
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def checksums(tensors: Tensors, metadata: dict[str, Any]) -> dict[str, str]:
    """The checksums of the model, with its description, and of what only training needs."""
    described = {key: value for key, value in metadata.items() if key not in CHECKSUMS}
    parts: tuple[Tensors, Tensors] = ({}, {})
    for name, tensor in tensors.items():
        parts[for_training(name)][name] = tensor
    return {"checksum": checksum(parts[0], described), "training_checksum": checksum(parts[1])}


def save_checkpoint(path: Path, tensors: Tensors, metadata: dict[str, Any]) -> None:
    """Write `tensors` and `metadata` to `path`, atomically.

    Raises:
        DdpmError: there is no room for it, or no permission to write there.
    """
    check_free_space(path, sum(tensor.nbytes + HEADER for tensor in tensors.values()))
    plain = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    described = {"format": FORMAT, **metadata}
    header = {"ddpm": json.dumps({**described, **checksums(plain, described)})}
    atomically(path, lambda partial: save_file(plain, partial, metadata=header))


def _apart(tensors: Tensors) -> Tensors:
    """The same tensors, none in the memory of another: safetensors refuses tied weights."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def load_checkpoint(path: Path, training: bool = False) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and metadata of a checkpoint, verified against its checksums.

    Args:
        path: the file.
        training: read what only training needs, too.

    Raises:
        Damaged: the file is truncated, damaged or foreign.
        DdpmError: it is missing, cannot be read, or is of another format.
    """
    check(exists(path) and not path.is_dir(), f"there is no checkpoint at {path}")
    try:
        known = what_it_is(path)
        if known is not None:
            raise Damaged(f"{path} is damaged: it is {known[0]}; {known[1]}")
        with safe_open(path, framework="pt") as file:
            metadata = _described(file.metadata() or {}, path)
            everything = training or metadata["format"] == format1.FORMAT
            names = [n for n in file.keys() if everything or not for_training(n)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise Damaged(
            f"{path} is damaged or is no checkpoint ({error}); use an older one or train again, or "
            "make a run of other people's weights with `ddpm import`"
        ) from error
    except OSError as error:
        raise DdpmError(f"cannot read {path} ({error.strerror or error})") from error
    if metadata["format"] == format1.FORMAT:
        sound = metadata.get("checksum") == checksum(tensors, format1.described(metadata))
    else:
        found = checksums(tensors, metadata)
        sound = all(metadata.get(key) == found[key] for key in CHECKSUMS[: 1 + training])
    if not sound:
        raise Damaged(
            f"{path} is damaged: its contents do not match its checksum; use an older checkpoint"
        )
    if metadata["format"] == format1.FORMAT:
        return format1.upgrade(path, tensors, metadata)
    return tensors, metadata


def _described(header: dict[str, str], path: Path) -> dict[str, Any]:
    """The description inside a file's header."""
    if "ddpm" not in header:
        raise Damaged(
            f"{path} was not written by ddpm: it does not describe its model; `ddpm import` makes "
            "a run of other people's weights"
        )
    try:
        metadata = json.loads(header["ddpm"])
    except json.JSONDecodeError as error:
        raise Damaged(f"the description inside {path} is damaged ({error})") from error
    if not isinstance(metadata, dict):
        raise Damaged(f"the description inside {path} was not written by ddpm")
    check(
        metadata.get("format") in (format1.FORMAT, FORMAT),
        f"{path} has checkpoint format {metadata.get('format')}, and this version of ddpm reads "
        f"formats {format1.FORMAT} and {FORMAT}; use the version that wrote it",
    )
    return metadata


def description(config: Config, image_format: ImageFormat, history: History) -> dict[str, Any]:
    """The metadata of a checkpoint, apart from its checksums.

    Raises:
        DdpmError: the configuration cannot be stored.
    """
    return {
        "config": config.to_dict(),
        "images": asdict(image_format),
        "history": asdict(history),
    }


@runtime_checkable
class Measured(Protocol):
    """What was measured of a model, or learned for it: a denoising error, a coding, held-out
    images."""

    def tensors(self) -> Tensors:
        """By names that begin as no other part's do."""
        ...


def model_tensors(
    weights: Tensors, diffusion: GaussianDiffusion, *measured: Measured | None
) -> Tensors:
    """What a file holds of a model: averaged weights, betas and what was measured of it.

    Args:
        weights: the state of the network, by name.
        diffusion: the whole chain.
        measured: parts, None for those that there are not.
    """
    tensors = {f"ema.{name}": value for name, value in weights.items()}
    tensors["diffusion.betas"] = torch.from_numpy(diffusion.schedule.betas.copy())
    for part in measured:
        tensors |= part.tensors() if part is not None else {}
    return tensors
