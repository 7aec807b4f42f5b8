"""What a user names: a folder, a file, or a model of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from ddpm.errors import DdpmError, check
from ddpm.interop.authors import is_authors, read_authors
from ddpm.interop.diffusers import is_diffusers, parts_of, read_diffusers
from ddpm.interop.foreign import Foreign, Told
from ddpm.interop.hub import download, is_hub_id
from ddpm.interop.naming import listed
from ddpm.interop.openai import is_openai, read_openai
from ddpm.interop.weights_file import read_weights
from ddpm.pretrained import pretrained
from ddpm.runs.folder import RunFolder
from ddpm.runtime.paths import exists, user_path


def read_foreign(source: str, told: Told | None = None) -> Foreign:
    """A model of another code base.

    Args:
        source: a folder in diffusers' layout, a file of weights, or a hub id (owner/name).
        told: what it does not say.

    Raises:
        DdpmError: there is nothing there, or nothing that can be read as a model of the paper's
            kind; says what does not fit.
    """
    told = told or Told()
    path = user_path(source)
    if not exists(path):
        check(
            source not in pretrained(),
            f"{source} comes with the package, and every command takes it as it is",
        )
        check(
            is_hub_id(source),
            f"{source} does not exist; give a folder in diffusers' layout, a file of weights, or a "
            "model of the Hugging Face hub (owner/name)",
        )
        return read_diffusers(download(source, unet_folder), told, source)
    if not path.is_dir():
        return read_file(path, told)
    check(
        not RunFolder(path).checkpoints(),
        f"{path} is a run of ddpm, which every command takes as it is",
    )
    unet_folder(path)
    return read_diffusers(path, told, name_of(path.resolve()))


def name_of(path: Path) -> str:
    """What a folder is called, with what is around it where that tells more."""
    plain = path.name in ("unet", "unet_ema") or path.name.startswith("checkpoint-")
    return f"{name_of(path.parent)}/{path.name}" if plain else path.name


def unet_folder(path: Path) -> Path:
    """Where the network of a folder in diffusers' layout lies.

    Raises:
        DdpmError: it is no such folder, or of another kind of model.
    """
    check(
        is_diffusers(path),
        f"{path} is no model in diffusers' layout: it has neither model_index.json nor unet/ nor "
        "the config.json of a network",
    )
    return parts_of(path).unet


def read_file(path: Path, told: Told) -> Foreign:
    """The model of a file of weights, in a naming that tells the layout of its network.

    Raises:
        DdpmError: it is damaged, or in another naming.
    """
    tensors, text, chosen = read_weights(path)
    check("ddpm" not in text, f"{path} is a file of ddpm, which every command takes as it is")
    if is_authors(tensors):
        found = read_authors(tensors, text, path, told)
    elif is_openai(tensors):
        found = read_openai(tensors, path, told)
    else:
        hint = "its names are not those of the authors' code or of improved-diffusion"
        if any(name.startswith("down_blocks.") for name in tensors):
            hint = "its names are those of diffusers; name the folder with its config.json"
        raise DdpmError(
            f"{path} holds {listed(sorted(tensors))} of no network that is known: {hint}"
        )
    note = () if chosen is None else (f"of {path} {chosen} are taken",)
    return Foreign(found.model, found.kind, (*note, *found.notes))
