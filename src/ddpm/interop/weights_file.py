"""Files of weights: safetensors, or pickles of which only tensors are read and nothing is run."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddpm.data.foreign import check_genuine
from ddpm.errors import Damaged, DdpmError, check
from ddpm.interop.naming import LONGEST, Tensors
from ddpm.runtime.paths import exists

AVERAGED = (
    *("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "unet_ema"),
    *("ema_ckpt", "params_ema", "averaged"),
)
RAW = ("model", "state_dict", "model_state_dict", "network", "unet", "net", "module", "params")
PREFIXES = (*AVERAGED, *RAW, "diffusion_model", "_orig_mod", "shadow")
SAID = re.compile(r"(?<![a-z])ema(?![a-z])|averag|avg|shadow|swa", re.IGNORECASE)  # of averages
DEEPEST = 8  # mappings inside one another


def read_weights(path: Path) -> tuple[Tensors, dict[str, str], str | None]:
    """The tensors of a file by name, without prefixes that all of them have.

    Where a file holds averaged and raw weights, the averaged ones are meant: every evaluation of
    the paper uses those.

    Args:
        path: a safetensors file, or one written by torch.save with nothing but tensors in it.

    Returns:
        The tensors; the text that a safetensors file carries; and what of the file they are where
        it held more, for the user.

    Raises:
        Damaged: it is cut short or something else.
        DdpmError: it is missing, holds more than tensors, or no weights that can be told apart.
    """
    check(exists(path) and path.is_file(), f"there is no file {path}")
    check_genuine(path)
    text: dict[str, str] = {}
    if looks_like_safetensors(path):
        found, text = read_safetensors(path)
    else:
        found = read_pickle(path)
    tensors, chosen = unwrapped(found, path)
    return tensors, text, chosen


def looks_like_safetensors(path: Path) -> bool:
    """By its ending or its first bytes: the length of a header, and a brace."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or head[8:] == b"{"


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """All of a safetensors file.

    Raises:
        Damaged: it is none, or not whole.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(
            f"{path} is damaged or no safetensors file ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise DdpmError(f"cannot read {path} ({error.strerror or error})") from error


def read_pickle(path: Path) -> Any:
    """What torch.save wrote, if it is made of tensors and plain values; no code of it is run.

    Raises:
        Damaged: it is cut short or something else.
        DdpmError: it holds objects whose making would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of half a zip file
            raise DdpmError(f"cannot read {path} ({error.strerror or error})") from error
        unsafe = what_could_run(error)
        if unsafe is not None:
            raise DdpmError(
                f"{path} holds more than tensors ({unsafe}), which could run code when it is read; "
                "ask for a safetensors file, or save the state_dict alone"
            ) from error
        raise Damaged(
            f"{path} is damaged or was not written by torch.save; copy or download it again, or "
            "ask for a safetensors file"
        ) from error


def what_could_run(error: Exception) -> str | None:
    """What torch found in a file that could run code; None if it stopped for another reason."""
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return wanted[1]
    return "TorchScript code" if "TorchScript" in str(error) else None


def unwrapped(found: Any, path: Path) -> tuple[Tensors, str | None]:
    """The one set of tensors that is meant, of all that a file holds, and what it was called where
    the file held more.

    Raises:
        DdpmError: there is none, there are several, or the averaged ones are not there after all.
    """
    chosen = None
    for _ in range(DEEPEST):
        groups = grouped(by_name(found, path))
        name = meant(groups, path)
        if name is None:
            return dict(groups), chosen
        check(
            isinstance(groups[name], Mapping) and len(groups[name]) > 0,
            f"'{name}' in {path} holds no weights by name; save a state_dict",
        )
        if len(groups) > 1 and chosen is None:
            chosen = f"the {'averaged ' * (name in AVERAGED)}weights '{name}'"
        found = groups[name]
    raise DdpmError(f"{path} holds mappings inside mappings without end; save the state_dict alone")


def by_name(found: Any, path: Path) -> Mapping[str, Any]:
    """What a file holds, if that is something by name.

    Raises:
        DdpmError: it is not.
    """
    if isinstance(found, list | tuple):
        found = of_list(found, path)
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise DdpmError(f"{path} holds no weights by name; save a state_dict")
    return found


def meant(groups: Mapping[str, Any], path: Path) -> str | None:
    """The name of those that are meant; None where they are weights themselves, not groups of them.

    Raises:
        DdpmError: they are neither, or it cannot be told which are meant.
    """
    averaged = [key for key in groups if key in AVERAGED]
    raw = [key for key in groups if key in RAW]
    if len(groups) == 1 and next(iter(groups)) in PREFIXES:
        raw = list(groups)
    if averaged or len(raw) == 1:
        name = (averaged or raw)[0]
        rivals = [k for k, v in groups.items() if k != name and SAID.search(k) and holds_more(v)]
        check(
            not rivals,
            f"{path} holds '{name}' and {quoted(rivals)}, of which "
            f"{'both' if averaged else 'the last'} may be averaged weights; save the state_dict "
            "that is meant alone",
        )
        return name
    odd = [key for key, value in groups.items() if not isinstance(value, Tensor)]
    check(
        len(groups) > 0 and not odd,
        f"{path} holds {quoted(odd) or 'nothing'} where only weights "
        "can stand; save the state_dict alone",
    )
    return None


def quoted(keys: list[str]) -> str:
    """The first three names, in quotes and short."""
    return ", ".join(repr(key[:LONGEST]) for key in keys[:3])


def holds_more(value: Any) -> bool:
    """Whether something may hold weights."""
    return isinstance(value, Mapping | list | tuple) and len(value) > 0


def grouped(found: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping by the first words of its keys, where all of them are words that wrap weights;
    itself otherwise."""
    first = {key.split(".", 1)[0] for key, value in found.items() if isinstance(value, Tensor)}
    if not first or not first <= set(PREFIXES) or any(key in PREFIXES for key in found):
        return dict(found)
    groups: dict[str, Any] = {
        key: value for key, value in found.items() if not isinstance(value, Tensor)
    }
    for key, value in found.items():
        if isinstance(value, Tensor):
            word, _, rest = key.partition(".")
            groups.setdefault(word, {})[rest] = value
    return groups


def of_list(found: list[Any] | tuple[Any, ...], path: Path) -> dict[str, Any]:
    """Of [model, optimiser, epoch, step, ema], which some training scripts save, the last or, where
    there is none, the first.

    Raises:
        DdpmError: it is another list.
    """
    known = len(found) in (4, 5) and isinstance(found[0], Mapping)
    check(known, f"{path} holds a list of {len(found)} things and no weights by name")
    names = ("model", "optimizer", "epoch", "step", "ema")
    return dict(zip(names, found, strict=False))
