"""Our models for others: a pipeline of diffusers, or the weights in the authors' naming."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ddpm.config import DiffusionConfig, UNetConfig
from ddpm.errors import DdpmError, check
from ddpm.interop import authors, diffusers, diffusers_unet
from ddpm.interop.card import model_card
from ddpm.interop.diffusers_scheduler import write_scheduler
from ddpm.interop.naming import Tensors, to_theirs
from ddpm.model import Ddpm
from ddpm.networks.experts import Experts
from ddpm.networks.unet import UNet
from ddpm.runtime.atomic import ADVICE, atomically, check_free_space, sync_folder, to_json
from ddpm.runtime.paths import exists


def export_diffusers(model: Ddpm, folder: Path, title: str) -> None:
    """Write a folder that `DDPMPipeline.from_pretrained` loads.

    What was measured of the model (`ddpm measure`), its calibration too, has no place there.

    Args:
        model: what to export.
        folder: must not exist yet; it is there whole or not at all.
        title: of its model card.

    Raises:
        DdpmError: diffusers has no counterpart of the model, which is named; or the folder is
            there already or cannot be written.
    """
    network, settings = papers_network(model)
    check(not exists(folder), f"{folder} is there already and is not overwritten; choose another")
    diffusion = model.config.diffusion
    assert isinstance(diffusion, DiffusionConfig)
    outputs = model.format.channels * (1 + model.diffusion.learns_variance)
    files: dict[str, Any] = {
        diffusers.INDEX: {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": diffusers_unet.VERSION,
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
        f"unet/{diffusers.CONFIG}": diffusers_unet.write_unet(settings, model.format, outputs),
        f"scheduler/{diffusers.SCHEDULER}": write_scheduler(model.diffusion, diffusion),
    }
    if beside := without_a_place(model):
        files[diffusers.OURS] = beside
    weights = to_theirs(network.state_dict(), network, diffusers_unet.NAMING, matrices=True)
    check_free_space(folder, sum(tensor.nbytes for tensor in weights.values()))
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        for name, values in files.items():
            write_plainly(partial / name, to_json(values, indent=2) + "\n")
        write_plainly(partial / "README.md", model_card(model, title))
        save(weights, partial / "unet" / f"{diffusers.WEIGHTS}.safetensors")
        partial.rename(folder)
        sync_folder(folder.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DdpmError(f"cannot write {folder} ({reason}); {ADVICE}") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial)


def export_weights(model: Ddpm, file: Path) -> None:
    """Write the averaged weights alone, in the authors' naming, to a safetensors file.

    What is no weight stands in the text of the file, for `ddpm import`.

    Raises:
        DdpmError: the authors' code has no counterpart of the network, or the file is there
            already or cannot be written.
    """
    network, settings = papers_network(model)
    odd = {
        "head_channels": settings.head_channels is not None and settings.head_channels,
        "variant": settings.variant != "paper" and settings.variant,
        "classes": settings.classes,
    }
    for name, value in odd.items():
        check(
            not value,
            f"the authors' code has no counterpart of network.{name} {value}; export with "
            "--format diffusers",
        )
    check(not exists(file), f"{file} is there already and is not overwritten; choose another")
    weights = to_theirs(network.state_dict(), network, authors.NAMING, matrices=False)
    check_free_space(file, sum(tensor.nbytes for tensor in weights.values()))
    config, betas = model.config, model.diffusion.schedule.betas
    if not np.array_equal(config.diffusion.build().schedule.betas, betas):
        config = replace(config, diffusion=replace(config.diffusion, betas=tuple(betas.tolist())))
    text = authors.description(config, model.format)
    atomically(file, lambda partial: save(weights, partial, text))


def save(weights: Tensors, path: Path, text: dict[str, str] | None = None) -> None:
    """Write tensors, always the same bytes: several texts would come in any order. diffusers wants
    to see that a file without one is of PyTorch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    mode = path.stat().st_mode
    save_file(weights, path, metadata=text or {"format": "pt"})
    path.chmod(mode)  # safetensors would let nobody else read the file


def write_plainly(path: Path, text: str) -> None:
    """A file in a folder that is not in its place yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def papers_network(model: Ddpm) -> tuple[UNet, UNetConfig]:
    """The network of a model and its settings, if it is our U-Net.

    Raises:
        DdpmError: it is another.
    """
    network: nn.Module = model.network
    settings = model.config.network
    check(
        not isinstance(network, Experts),
        "this model holds two networks by noise level (network.switch), which no other program "
        "knows; model.save writes it for ddpm",
    )
    if not (isinstance(network, UNet) and isinstance(settings, UNetConfig)):
        raise DdpmError(
            f"only models with the paper's U-Net can be exported, and this one has a "
            f"{type(network).__name__}; model.save writes it for ddpm"
        )
    return network, settings


def without_a_place(model: Ddpm) -> dict[str, Any]:
    """What diffusers has no setting for."""
    beside: dict[str, Any] = {}
    if model.format.levels != 256:
        beside["grey_levels"] = model.format.levels
    if model.config.classes:
        beside |= {"null_class": True, "class_names": list(model.config.data.class_names)}
    return beside
