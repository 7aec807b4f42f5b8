"""What a model and a training run are made of: typed, checked when built, stored as JSON.

The defaults are the paper's CIFAR-10 values; `ddpm.training.presets` holds the named variants. The
network and the diffusion are stored by the name they are registered under (`ddpm.register`), so
what is loaded is what was stored, or refused.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from torch import nn

from ddpm.data.images import Shape
from ddpm.diffusion.gaussian import GaussianDiffusion, PredictionType, VarianceType
from ddpm.diffusion.losses import LossType
from ddpm.diffusion.schedule import ScheduleName, make_schedule, schedule_from_betas
from ddpm.errors import DdpmError, check
from ddpm.networks.unet import UNet, Variant
from ddpm.registry import Kind, lookup, module_of, name_of, register
from ddpm.runtime.device import Precision

LABEL_DROPOUT = 0.1  # by default, as Ho & Salimans (2022) recommend
RENAMED = {"training.wandb": "wandb_project"}  # settings of older checkpoints


def at_least(name: str, value: float, low: float) -> None:
    """Refuse a value below `low`."""
    check(value >= low, f"{name} must be at least {low:g}, got {value:g}")


def one_of(name: str, value: str, options: tuple[str, ...]) -> None:
    """Refuse a value outside `options`."""
    check(value in options, f"{name} must be one of {', '.join(options)}, got '{value}'")


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

    def build(self, shape: Shape, out_channels: int) -> UNet:
        """See `NetworkConfig.build`."""
        channels, height, width = shape
        return UNet(
            in_channels=channels,
            out_channels=out_channels,
            image_size=(height, width),
            **dataclasses.asdict(self),
        )


@register("diffusion", "gaussian")
@dataclass(frozen=True)
class DiffusionConfig:
    """The forward process and how the network's output is read."""

    schedule: ScheduleName = "linear"
    """linear, quad, const, warmup10, warmup50, jsd, cosine or sigmoid."""
    timesteps: int = 1000
    """T, the number of diffusion steps."""
    beta_start: float = 1e-4
    """First forward variance."""
    beta_end: float = 0.02
    """Last forward variance."""
    betas: tuple[float, ...] | None = None
    """All forward variances by value, instead of the four settings above."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""
    variance_type: VarianceType = "fixed_large"
    """The variance of the reverse step."""
    clip_sample: bool = True
    """Clip the predicted x_0 to [-1, 1]."""

    def __post_init__(self) -> None:
        if self.betas is not None:
            object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        self.build()

    def build(self) -> GaussianDiffusion:
        """The diffusion itself."""
        if self.betas is not None:
            schedule = schedule_from_betas(self.betas)
        else:
            schedule = make_schedule(self.schedule, self.timesteps, self.beta_start, self.beta_end)
        return GaussianDiffusion(
            schedule, self.prediction_type, self.variance_type, self.clip_sample
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Algorithm 1 and everything around it."""

    steps: int = 800_000
    """Optimiser steps in all."""
    batch_size: int = 128
    """Images a step, over all processes."""
    accumulate: int = 1
    """Micro-batches that each process cuts its part of a step into, to save memory."""
    activation_checkpointing: bool = False
    """Compute the blocks' activations twice rather than keep them, to save memory."""
    lr: float = 2e-4
    """Adam's learning rate after warm-up."""
    lr_decay: Literal["constant", "cosine"] = "constant"
    """What the rate does after warm-up: stay (the paper), or fall to 0 along a half cosine."""
    warmup: int = 5000
    """Steps over which the rate rises linearly."""
    grad_clip: float = 1.0
    """Largest global norm of the gradient."""
    ema_decay: float = 0.9999
    """Decay of the averaged weights that every evaluation uses."""
    label_dropout: float = LABEL_DROPOUT
    """Probability that an image of a conditional model is shown without its class, which teaches
    the null class: bits/dim, compression and guidance use it."""
    loss: LossType = "simple"
    """simple (L_simple), vlb (the bound) or hybrid."""
    time_sampling: Literal["uniform", "bound"] = "uniform"
    """Which t are trained on: all alike (the paper), or each as often as the bound weighs its
    error, which turns L_simple into the bound, without the large weights."""
    start_from: str | None = None
    """A run, a file or a model of `ddpm models` whose weights to begin with."""
    seed: int = 0
    """Decides the weights at the start, the order of the data and all noise."""
    precision: Precision = "auto"
    """Of the network; the diffusion maths is always float32. auto: the fastest safe one."""
    compile: bool = False
    """Run the network through torch.compile; where that fails, continue without it."""
    save_every: int = 5000
    """Steps between checkpoints; the last two are kept."""
    sample_every: int = 5000
    """Steps between sample grids; 0 draws none."""
    log_every: int = 50
    """Steps between lines in stats.jsonl and TensorBoard."""
    max_minutes: float | None = None
    """Stop after this long, saved and ready to resume."""
    wandb_project: str | None = None
    """A Weights & Biases project that gets the curves too; TensorBoard always does."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "log_every"):
            at_least(name, getattr(self, name), 1)
        for name in ("warmup", "sample_every", "seed"):
            at_least(name, getattr(self, name), 0)
        check(self.lr > 0, f"lr must be positive, got {self.lr:g}")
        check(self.grad_clip > 0, f"grad_clip must be positive, got {self.grad_clip:g}")
        check(0 <= self.ema_decay < 1, f"ema_decay must lie in [0, 1), got {self.ema_decay:g}")
        check(
            0 < self.label_dropout < 1,
            f"label_dropout must lie between 0 and 1, got {self.label_dropout:g}; the null class, "
            "which bits/dim, compression and guidance use, is learned from these images",
        )
        one_of("lr_decay", self.lr_decay, ("constant", "cosine"))
        one_of("loss", self.loss, get_args(LossType))
        one_of("time_sampling", self.time_sampling, ("uniform", "bound"))
        check(
            self.time_sampling == "uniform" or self.loss == "simple",
            f"time_sampling bound gives L_simple the weights of the bound; loss '{self.loss}' has "
            "them already, so use one of the two",
        )
        one_of("precision", self.precision, get_args(Precision))
        check(
            self.max_minutes is None or self.max_minutes > 0,
            f"max_minutes must be positive, got {self.max_minutes}",
        )


@dataclass(frozen=True)
class Config:
    """Everything `ddpm train` can be told, in four groups."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check(
            self.training.time_sampling == "uniform" or self.diffusion.prediction_type == "epsilon",
            "time_sampling bound is for networks that predict the noise (epsilon), not "
            f"'{self.diffusion.prediction_type}'",
        )
        for name, given in (
            ("training.label_dropout", self.training.label_dropout != LABEL_DROPOUT),
            ("data.class_names", bool(self.data.class_names)),
        ):
            check(
                self.classes > 0 or not given,
                f"{name} has no effect on a model without classes; set network.classes as well",
            )
        check(
            len(self.data.class_names) in (0, self.classes),
            f"data.class_names has {len(self.data.class_names)} names, and network.classes is "
            f"{self.classes}; give one name for each class",
        )

    @property
    def classes(self) -> int:
        """Classes of a conditional model; 0 for none.

        Raises:
            DdpmError: the network's settings have a field `classes` that is no such number.
        """
        found = getattr(self.network, "classes", 0)
        check(
            isinstance(found, int) and found >= 0,
            f"network.classes must be a whole number of at least 0, got {found!r}",
        )
        return found

    def build_network(self, shape: Shape) -> nn.Module:
        """The network for images of `shape` (c, h, w), freshly initialised.

        Raises:
            DdpmError: the settings do not fit together or to the images.
        """
        learned = self.diffusion.build().learns_variance
        network = self.network.build(shape, shape[0] * (2 if learned else 1))
        check(
            isinstance(network, nn.Module),
            f"{type(self.network).__name__}.build returned {type(network).__name__}, and a network "
            "must be a torch.nn.Module",
        )
        return network

    def to_dict(self) -> dict[str, Any]:
        """As nested plain values, for JSON.

        Raises:
            DdpmError: a group has no registered name, or a setting would not come back as it is.
        """
        stored: dict[str, Any] = {}
        for group in dataclasses.fields(self):
            settings = getattr(self, group.name)
            check(
                dataclasses.is_dataclass(settings),
                f"{type(settings).__name__} cannot be stored; make it a frozen dataclass",
            )
            values = dataclasses.asdict(settings)
            kind = next((kind for kind in KINDS if kind == group.name), None)
            if kind is not None:
                values = {"kind": name_of(kind, type(settings)), **values}
                if not type(settings).__module__.startswith("ddpm."):
                    values["module"] = module_of(type(settings))
            else:
                expected = PLAIN[group.name]
                check(
                    type(settings) is expected,
                    f"{type(settings).__name__} cannot be stored; use {expected.__name__}",
                )
            stored[group.name] = values
        try:
            again = Config.from_dict(json.loads(json.dumps(stored)))
        except TypeError as error:
            raise DdpmError(
                f"the configuration cannot be stored ({error}); use numbers, strings and tuples"
            ) from error
        check(
            again == self,
            "the configuration would come back changed; use numbers, strings and tuples",
        )
        return stored

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> Config:
        """The inverse of `to_dict`; settings that are not there get their defaults.

        Raises:
            DdpmError: a kind or setting is not known; says which module to import.
        """
        groups = {}
        known = {group.name for group in dataclasses.fields(Config)}
        unknown = sorted(set(stored) - known)
        if unknown:
            raise DdpmError(f"the stored configuration has the unknown part '{unknown[0]}'")
        for group in dataclasses.fields(Config):
            values = dict(stored.get(group.name, {}))
            kind = next((kind for kind in KINDS if kind == group.name), None)
            if kind is not None:
                name = values.pop("kind", DEFAULT_KINDS[kind])
                make = lookup(kind, name, values.pop("module", None))
            else:
                make = PLAIN[group.name]
            groups[group.name] = _settings(make, group.name, values)
        return Config(**groups)


KINDS: tuple[Kind, ...] = ("network", "diffusion")  # groups that are stored by a name
DEFAULT_KINDS = {"network": "unet", "diffusion": "gaussian"}  # of checkpoints that store none
PLAIN: dict[str, Any] = {"data": DataConfig, "training": TrainingConfig}


def _settings(make: Any, group: str, values: dict[str, Any]) -> Any:
    """One group of settings from its stored values."""
    values = {RENAMED.get(f"{group}.{key}", key): value for key, value in values.items()}
    known = {field.name for field in dataclasses.fields(make)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise DdpmError(
            f"the stored configuration has the unknown setting {group}.{unknown[0]}; it was "
            "written by another version of ddpm, or of the module that registers it"
        )
    return make(**{key: _as_tuples(value) for key, value in values.items()})


def _as_tuples(value: Any) -> Any:
    """JSON knows lists only."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
