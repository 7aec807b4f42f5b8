"""What a model is made of: images, network, diffusion. The defaults are the paper's CIFAR-10."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

from ddpm.config.ranges import at_least
from ddpm.data.images import Shape
from ddpm.diffusion.gaussian import GaussianDiffusion, PredictionType, VarianceType
from ddpm.diffusion.learned import LearnedLogSnr
from ddpm.diffusion.schedule import ScheduleName, make_schedule, schedule_from_betas
from ddpm.errors import check, one_of
from ddpm.networks.experts import Experts
from ddpm.networks.unet import UNet, Variant
from ddpm.registry import register


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and the shape they are brought to."""

    path: str | None = None
    """A folder of images, or any form of docs/data.md; the digits preset needs none."""
    image_size: int = 32
    """Side of the square that images are resized and centre-cropped to."""
    channels: int = 3
    """1 for grey, 3 for RGB."""
    flip: bool = True
    """Mirror images left to right half of the time while training."""
    hold_out: float = 0.0
    """Share of the images that is not trained on, picked by content: for a set without held-out
    images of its own."""
    class_names: tuple[str, ...] = ()
    """Names of the classes of a conditional model, in the order of the labels; those of the images,
    where they have some."""

    def __post_init__(self) -> None:
        at_least("image_size", self.image_size, 1)
        check(
            all(self.class_names) and len(set(self.class_names)) == len(self.class_names),
            f"class_names must all be different and not empty, got {', '.join(self.class_names)}",
        )
        check(0 <= self.hold_out < 1, f"hold_out must lie in [0, 1), got {self.hold_out:g}")
        check(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}")


@runtime_checkable
class NetworkConfig(Protocol):
    """Settings of a network: a frozen dataclass of numbers, strings and tuples of them.

    One with a field `classes` of at least 1 makes a conditional network, called with labels.
    """

    def build(self, shape: Shape, out_channels: int) -> nn.Module:
        """The network, freshly initialised.

        Args:
            shape: (channels, height, width) of the images.
            out_channels: of the output: as many, or twice as many for learned variances.

        Returns:
            A module that maps x, [b, c, h, w] in [-1, 1], and t, a long vector [b], to
            [b, out_channels, h, w]. With classes it is called with a third argument, the labels,
            a long vector [b] of 0..classes: the last is the null class, which stands for none.
        """
        ...


@register("network", "unet")
@dataclass(frozen=True)
class UNetConfig:
    """The U-Net of the paper's Appendix B (see `ddpm.UNet`)."""

    ch: int = 128
    """Channels of the first level."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Channel multiplier of each level."""
    num_res_blocks: int = 2
    """Residual blocks a level."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which self-attention follows every res-block."""
    dropout: float = 0.1
    """Dropout probability inside the res-blocks."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    classes: int = 0
    """Classes of a conditional model; 0 for none."""
    head_channels: int | None = None
    """Channels of an attention head; None, as in the paper, for one head."""
    variant: Variant = "paper"
    """Constants that no weights tell: paper; or openai, those of improved-diffusion and the
    defaults of diffusers."""
    switch: int = 0
    """The timestep from which on a second network of the same layout takes over; 0, as in the
    paper, for one network."""

    def __post_init__(self) -> None:
        at_least("switch", self.switch, 0)

    def build(self, shape: Shape, out_channels: int) -> UNet | Experts:
        """See `NetworkConfig.build`."""
        channels, height, width = shape
        settings = dataclasses.asdict(self)
        switch = settings.pop("switch")

        def network() -> UNet:
            return UNet(
                in_channels=channels,
                out_channels=out_channels,
                image_size=(height, width),
                **settings,
            )

        return Experts(network(), network(), switch) if switch else network()


@register("diffusion", "gaussian")
@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process and how the network's output is read."""

    schedule: ScheduleName = "linear"
    """linear, quad, const, warmup10, warmup50, jsd, cosine or sigmoid; or learned, with the weights
    and by the bound (training.loss vlb)."""
    timesteps: int = 1000
    """T, the number of diffusion steps."""
    beta_start: float = 1e-4
    """First forward variance."""
    beta_end: float = 0.02
    """Last forward variance."""
    betas: tuple[float, ...] | None = None
    """All forward variances by value, instead of the four settings above."""
    ends: Literal["free", "fixed"] = "free"
    """Whether the first and the last noise level of a learned schedule are learned, too."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""
    variance_type: VarianceType = "fixed_large"
    """The variance of the reverse step."""
    clip_sample: bool = True
    """Clip the predicted x_0 to [-1, 1]."""

    def __post_init__(self) -> None:
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        one_of("ends", self.ends, ("free", "fixed"))
        check(
            self.ends == "free" or self.schedule == "learned",
            f"ends {self.ends} has no effect on the schedule {self.schedule}; it is for a learned "
            "one",
        )
        check(
            self.schedule != "learned" or self.betas is None,
            "betas by value are not learned; leave out one of schedule learned and betas",
        )
        self.build()
        self.learned()

    def learned(self) -> LearnedLogSnr | None:
        """The parameters of a learned schedule, fresh; None for the others."""
        if self.schedule != "learned":
            return None
        return LearnedLogSnr(self.build().schedule, self.ends == "free")

    def build(self) -> GaussianDiffusion:
        """The diffusion itself; with a learned schedule, as it is before training."""
        if self.betas is not None:
            schedule = schedule_from_betas(self.betas)
        else:
            schedule = make_schedule(self.schedule, self.timesteps, self.beta_start, self.beta_end)
        return GaussianDiffusion(
            schedule, self.prediction_type, self.variance_type, self.clip_sample
        )
