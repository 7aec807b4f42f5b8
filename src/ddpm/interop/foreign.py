"""A model that was read from another code base, and what its user had to say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ddpm.config import Config, DataConfig, DiffusionConfig, UNetConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import check
from ddpm.interop.naming import Naming, Tensors, to_ours
from ddpm.model import Ddpm
from ddpm.networks.unet import UNet
from ddpm.runs.history import History


@dataclass(frozen=True)
class Told:
    """What a user says of weights that do not say it themselves; None or empty for nothing.

    Args:
        image_size: side of the images.
        norm_groups: groups of every GroupNorm.
        heads: of every attention.
        diffusion: settings of `DiffusionConfig` by name.
        null_class: the last class of a conditional network stands for none.
        ignore: settings of diffusers' sampling, or rescale_timesteps of improved-diffusion, that
            are left out.
    """

    image_size: int | None = None
    norm_groups: int | None = None
    heads: int | None = None
    diffusion: Mapping[str, Any] | None = None
    null_class: bool = False
    ignore: tuple[str, ...] = ()

    def only(self, where: str, *names: str) -> None:
        """Refuse what has no effect on weights of this kind.

        Raises:
            DdpmError: something else than `names` was said.
        """
        for field in fields(self):
            given = getattr(self, field.name) != field.default
            option = "--diffusion.*" if field.name == "diffusion" else f"--{field.name}"
            check(
                not given or field.name in names,
                f"{option.replace('_', '-')} has no effect on {where}; leave it out",
            )

    def papers_diffusion(
        self, image_format: ImageFormat, outputs: int, path: Path
    ) -> tuple[DiffusionConfig, str]:
        """The diffusion of weights beside which nothing says it, and a sentence about that.

        It is the paper's, fixed_large for CIFAR-10 and fixed_small for 256x256 pixels, but for what
        was said.

        Args:
            image_format: of the images.
            outputs: channels of the network's output; twice the image's for a learned variance.
            path: of the weights.

        Raises:
            DdpmError: what was said has no meaning.
        """
        small = min(image_format.height, image_format.width) <= 32
        learned = outputs == 2 * image_format.channels
        variance = "learned_range" if learned else "fixed_large" if small else "fixed_small"
        diffusion = DiffusionConfig(**{"variance_type": variance, **(self.diffusion or {})})
        is_so = (
            f"({'betas by value' if diffusion.betas is not None else diffusion.schedule}, "
            f"T = {diffusion.build().num_timesteps}, {diffusion.prediction_type}, "
            f"{diffusion.variance_type})"
        )
        if self.diffusion:
            return diffusion, f"the diffusion is as told, and the paper's for the rest {is_so}"
        return diffusion, (
            f"{path} does not say its diffusion, so the paper's is assumed {is_so}; another is "
            "given with --diffusion.*"
        )


@dataclass(frozen=True)
class Foreign:
    """A model as it was read.

    Args:
        model: with the weights, not measured.
        kind: the format that it came in.
        notes: sentences that its user should see.
    """

    model: Ddpm
    kind: str
    notes: tuple[str, ...]


def assemble(
    tensors: Tensors,
    naming: Naming,
    network: UNetConfig,
    diffusion: DiffusionConfig,
    image_format: ImageFormat,
    outputs: int,
    *,
    where: str,
    origin: str,
    class_names: tuple[str, ...] = (),
) -> Ddpm:
    """The model of weights under other names.

    Args:
        tensors: the weights.
        naming: of the code base.
        network, diffusion, image_format: what they are of.
        outputs: channels of the network's output.
        where: they were read, for messages.
        origin: where they come from, for `History`.
        class_names: of a conditional model.

    Raises:
        DdpmError: they do not fit together.
    """
    channels, square = image_format.channels, image_format.height == image_format.width
    learned = diffusion.build().learns_variance
    check(
        outputs == channels * (1 + learned),
        f"the network of {where} has {outputs} output channels (out_channels) for images of "
        f"{channels} (in_channels), and variance_type {diffusion.variance_type} needs "
        f"{channels * (1 + learned)}",
    )
    data = DataConfig(class_names=class_names)
    if square and channels in (1, 3):
        data = replace(data, image_size=image_format.height, channels=channels)
    config = Config(data=data, network=network, diffusion=diffusion)
    blocks = len(network.ch_mult) * (2 * network.num_res_blocks + 1)
    check(
        blocks < len(tensors),
        f"{where} has {len(tensors)} tensors, too few for a network of {blocks} res-blocks",
    )
    with torch.device("meta"):  # its weights come from the file, so it needs no memory of its own
        built = network.build(image_format.shape, outputs)
    assert isinstance(built, UNet)  # nobody else's weights hold two networks
    built.load_state_dict(to_ours(tensors, built, naming, where), assign=True)
    history = History(origin=origin)
    return Ddpm(config, image_format, built.requires_grad_(False), history=history)


def multiples(widths: list[int], ch: int, where: str) -> tuple[int, ...]:
    """`ch_mult`, from the channels of each level.

    Raises:
        DdpmError: they are no multiples of ch.
    """
    check(
        ch > 0 and all(width > 0 and width % ch == 0 for width in widths),
        f"{where} has levels of {widths} channels, which are no multiples of its first {ch}",
    )
    return tuple(width // ch for width in widths)
