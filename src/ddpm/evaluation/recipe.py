"""In what a model's training differs from a recipe, such as the paper's: read off both."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ddpm.config import Config
from ddpm.data.images import ImageFormat
from ddpm.model import Ddpm


class Difference(NamedTuple):
    """One setting: what it is for this model, and for the paper's."""

    what: str
    here: str
    there: str


def differences(model: Ddpm, recipe: Config, data: str) -> list[Difference]:
    """What is not the same, the most important first.

    Args:
        model: whose configuration and history are read.
        recipe: of the training to compare with.
        data: name of the images that the recipe is for, which have 256 grey levels.

    Returns:
        Differences only; a model trained by the recipe differs in what the recipe leaves open: the
        images' name, and the precision.
    """
    size, channels = recipe.data.image_size, recipe.data.channels
    expected = ImageFormat(channels, size, size)
    rows = [
        Difference("images", f"{model.history.data or 'not said'}", data),
        Difference("format", str(model.format), str(expected)),
        Difference("parameters", f"{model.num_parameters:,}", f"{parameters_of(recipe):,}"),
        *_seen(model, recipe),
        *(
            Difference(what, here, there)
            for (what, here), (_, there) in zip(
                _settings(model.config, model.history.loss), _settings(recipe), strict=True
            )
        ),
        Difference("precision", _precision(model), "not stated"),
    ]
    return [row for row in rows if row.here != row.there]


def _precision(model: Ddpm) -> str:
    """In which it was trained, if that is known, or what was asked for."""
    return model.history.precision or model.config.training.precision


def parameters_of(config: Config) -> int:
    """Of the network that a configuration describes."""
    size = config.data.image_size
    with torch.device("meta"):  # no memory, no numbers
        network = config.build_network((config.data.channels, size, size))
    return sum(parameter.numel() for parameter in network.parameters())


def _seen(model: Ddpm, recipe: Config) -> list[Difference]:
    """How long both were trained."""
    history, training = model.history, recipe.training
    before = history.images_before
    steps = f"{history.step:,}"
    if before:
        steps += f", from weights that had seen {before:,} images"
    images = training.steps * training.batch_size
    return [
        Difference("training steps", steps, f"{training.steps:,}"),
        Difference("images seen", f"{history.images:,}", f"{images:,}"),
    ]


def _settings(config: Config, own_loss: str | None = None) -> list[tuple[str, str]]:
    """Settings that decide what a model learns, in words."""
    training, diffusion = config.training, config.diffusion
    loss = own_loss or training.loss
    loss += {
        "uniform": "",
        "bound": ", t drawn as the bound weighs it",
        "both": ", t drawn evenly and as the bound weighs it, half and half",
    }[training.time_sampling]
    if training.stratified_time:
        loss += ", t spread over the batch"
    if diffusion.betas is not None:
        schedule = f"{len(diffusion.betas):,} betas of its own"
    else:
        schedule = (
            f"{diffusion.schedule}, T {diffusion.timesteps:,}, "
            f"{diffusion.beta_start:g} to {diffusion.beta_end:g}"
        )
    dropout, switch = (getattr(config.network, name, None) for name in ("dropout", "switch"))
    return [
        ("networks", f"two, the second from t = {switch}" if switch else "one"),
        ("optimiser", training.optimizer),
        ("batch", f"{training.batch_size:,}"),
        ("loss", loss),
        ("prediction", diffusion.prediction_type),
        ("variance", diffusion.variance_type),
        ("schedule", schedule),
        ("learning rate", f"{training.lr:g}, {training.lr_decay}"),
        ("warm-up", f"{training.warmup:,} steps"),
        ("gradient clip", f"{training.grad_clip:g}"),
        ("EMA", f"{training.ema_decay:g}"),
        ("dropout", "not said" if dropout is None else f"{dropout:g}"),
        ("flips", "yes" if config.data.flip else "no"),
    ]
