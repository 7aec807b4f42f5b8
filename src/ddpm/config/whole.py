"""What a model and a training run are made of: typed, checked when built, stored as JSON.

The defaults are the paper's CIFAR-10 values; `ddpm.training.presets` holds the named variants. The
network and the diffusion are stored by the name they are registered under (`ddpm.register`), so
what is loaded is what was stored, or refused.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ddpm.config.model import DataConfig, DiffusionConfig, NetworkConfig, UNetConfig
from ddpm.config.training import LABEL_DROPOUT, TrainingConfig
from ddpm.data.images import Shape
from ddpm.errors import DdpmError, check
from ddpm.registry import Kind, lookup, module_of, name_of

RENAMED = {"training.wandb": "wandb_project"}  # settings of older checkpoints


@dataclass(frozen=True)
class Config:
    """Everything `ddpm train` can be told, in four groups."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check(
            self.training.time_sampling == "uniform"
            or self.diffusion.prediction_type in ("epsilon", "v_prediction"),
            f"time_sampling {self.training.time_sampling} is for networks that predict the noise "
            f"(epsilon) or v_prediction, not '{self.diffusion.prediction_type}'",
        )
        learned = getattr(self.diffusion, "schedule", None) == "learned"
        check(
            not learned or self.training.loss == "vlb",
            f"a learned schedule is trained with the bound, and training.loss is "
            f"'{self.training.loss}'; set it to vlb",
        )
        total = self.diffusion.build().num_timesteps
        check(
            getattr(self.network, "switch", 0) < total,
            f"network.switch must lie below T = {total:,}, or the second network is never used",
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
