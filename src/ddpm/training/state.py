"""Everything that decides how a run goes on: weights, averaged weights, optimiser, step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from ddpm.codec import Coding
from ddpm.config import Config
from ddpm.data.content import DataFacts
from ddpm.data.images import ImageFormat
from ddpm.data.labels import listed
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.learned import without_schedule
from ddpm.errors import DdpmError, check
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.held_out import HeldOut
from ddpm.model import Ddpm
from ddpm.networks.sharding import full_tensor, is_sharded, shard, shard_like
from ddpm.runs.checkpoint import Tensors, description, model_tensors, save_checkpoint
from ddpm.runs.folder import RunFolder, load_newest
from ddpm.runs.history import History
from ddpm.runs.pins import make_way
from ddpm.runtime import parallel
from ddpm.runtime.device import Floats, in_channels_last
from ddpm.runtime.randomness import derive_key
from ddpm.training.ema import Ema
from ddpm.training.learned_schedule import add_schedule, schedule_of
from ddpm.training.optimizers import Optimizers
from ddpm.training.resume_rules import check_same_betas, check_same_data, check_same_run

log = logging.getLogger("ddpm")


@dataclass
class TrainingState:
    """The state of a run after `step` steps; (seed, step) decides all its random numbers.

    Args:
        config: of the run.
        format: of the images.
        device: where it is trained.
        facts: what the training images are known by.
        loss: name of an own loss, None for `training.loss`.
    """

    config: Config
    format: ImageFormat
    device: torch.device
    facts: DataFacts | None = None
    loss: str | None = None
    step: int = 0
    seconds: float = 0.0
    images_before: int = 0
    seconds_before: float = 0.0
    began_from: str | None = None
    precision: Floats | None = None
    denoising_error: DenoisingError | None = None
    coding: Coding | None = None
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        training = self.config.training
        torch.manual_seed(derive_key(training.seed, "init"))
        self.network = in_channels_last(add_schedule(self._build(), self.config).to(self.device))
        self.ema = Ema(self.network, training.ema_decay)
        shard(self.network)
        shard(self.ema.network)
        channels = self.format.shape[0]
        outputs = channels * (2 if self.config.diffusion.build().learns_variance else 1)
        self.optimizers = Optimizers(self.network, training, channels, outputs)

    def _build(self) -> nn.Module:
        """A fresh network."""
        return self.config.build_network(self.format.shape).to(self.device)

    @property
    def history(self) -> History:
        """What the weights have been through so far."""
        return History(
            data=self.facts.name if self.facts else "",
            step=self.step,
            images=self.step * self.config.training.batch_size + self.images_before,
            seconds=self.seconds + self.seconds_before,
            images_before=self.images_before,
            seconds_before=self.seconds_before,
            loss=self.loss,
            facts=self.facts,
            began_from=self.began_from,
            precision=self.precision,
        )

    @property
    def model(self) -> Ddpm:
        """The model with the averaged weights, as it stands."""
        network = self.ema.network
        if is_sharded() or schedule_of(network) is not None:
            averages = {name: full_tensor(v) for name, v in network.state_dict().items()}
            network = self._build().requires_grad_(False)
            network.load_state_dict(without_schedule(averages))
        return Ddpm(
            self.config,
            self.format,
            network,
            self.diffusion,
            history=self.history,
            denoising_error=self.denoising_error,
            coding=self.coding,
            held_out=self.held_out,
        )

    @property
    def diffusion(self) -> GaussianDiffusion:
        """Of the model; a learned schedule is averaged as the weights are."""
        diffusion, learned = self.config.diffusion.build(), schedule_of(self.ema.network)
        return diffusion if learned is None else replace(diffusion, schedule=learned.schedule())

    @property
    def nbytes(self) -> int:
        """About what a checkpoint takes on disk: weights, averages and two moments."""
        return 4 * sum(value.nbytes for value in self.network.state_dict().values())

    def save(self, run: RunFolder) -> None:
        """Write a checkpoint into `run` and drop the oldest; every process must ask for it.

        Raises:
            DdpmError: it cannot be written, or a weight is no longer finite.
        """
        averages = {k: full_tensor(v) for k, v in self.ema.network.state_dict().items()}
        parts = self.denoising_error, self.coding, self.held_out
        tensors = model_tensors(averages, self.diffusion, *parts)
        for name, value in self.network.state_dict().items():
            tensors[f"network.{name}"] = full_tensor(value)
        tensors |= self.optimizers.tensors()
        parallel.on_main(lambda: self._write(run, tensors))

    def _write(self, run: RunFolder, tensors: Tensors) -> None:
        """The checkpoint, unless its weights are corrupted; over none that archives need."""
        check(
            all(bool(v.isfinite().all()) for k, v in tensors.items() if k.startswith("network.")),
            f"a weight is no longer finite at step {self.step}, so nothing is saved; resume from "
            "the last checkpoint with a lower training.lr",
        )
        path = run.checkpoint(self.step)
        make_way(path)
        save_checkpoint(path, tensors, description(self.config, self.format, self.history))
        run.rotate(path)

    def start_from(self, model: Ddpm) -> None:
        """Begin with the (averaged) weights of a trained model; step and optimiser start afresh.

        Raises:
            DdpmError: its network is not the one that this run trains.
        """
        theirs, ours = model.config, self.config
        check(
            model.format.shape == self.format.shape
            and _without_dropout(theirs.network) == _without_dropout(ours.network),
            f"the weights to start from are of another network, for images of shape "
            f"{model.format.shape}; give this run such images and the same network settings"
            f"{_differences(theirs.network, ours.network)}",
        )
        check(
            model.diffusion.learns_variance == ours.diffusion.build().learns_variance,
            f"the weights to start from are of another network, one of variance_type "
            f"{model.diffusion.variance_type}; give this run the same (diffusion.variance_type)",
        )
        check(
            theirs.diffusion.prediction_type == ours.diffusion.prediction_type,
            f"the weights to start from predict '{theirs.diffusion.prediction_type}', and this run "
            f"trains '{ours.diffusion.prediction_type}'; give it the same "
            "diffusion.prediction_type",
        )
        known, wanted = theirs.data.class_names, ours.data.class_names
        if known != wanted:
            log.warning(
                "the weights to start from know the classes %s, and this run has %s",
                *(listed(known) or "by number only", listed(wanted) or "by number only"),
            )
        self.images_before, self.seconds_before = model.history.images, model.history.seconds
        self.began_from = model.history.origin or model.history.began_from
        weights = model.network.state_dict()
        for network in (self.network, self.ema.network):
            fill(network, network.state_dict() | dict(weights))  # a learned schedule stays

    def restore(self, run: RunFolder, other_images: bool = False) -> None:
        """Take up the newest good checkpoint of `run`.

        Args:
            run: its folder.
            other_images: go on with other images than those it was trained on so far.

        Raises:
            DdpmError: there is none, or it is of another model or run.
        """
        path, tensors, metadata = load_newest(run.path, training=True)
        try:
            history = History.read(metadata["history"])
            check_same_data(
                ImageFormat(**metadata["images"]),
                history,
                self.format,
                self.history,
                path,
                other_images,
            )
            stored = Config.from_dict(metadata["config"])
            check_same_run(stored, self.config, path, history.precision)
            check_same_betas(tensors, self.config, path)
            for prefix, network in (("network", self.network), ("ema", self.ema.network)):
                fill(network, tensors, f"{prefix}.")
            self.step = history.step
            self.images_before = history.images_before
            self.began_from = history.began_from
            self.precision = history.precision
            self.seconds_before = history.seconds_before
            self.seconds = history.seconds - history.seconds_before
            self.denoising_error = DenoisingError.from_tensors(tensors)
            self.coding = Coding.from_tensors(tensors)
            self.held_out = HeldOut.from_tensors(tensors)
            self.optimizers.restore(tensors, self.step)
        except DdpmError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DdpmError(
                f"{path} does not hold a complete training state ({reason}), "
                "so training cannot be resumed from it; resume from a checkpoint of a training run"
            ) from error


def _without_dropout(network: Any) -> Any:
    """Settings of a network, with the dropout that weights do not depend on taken out."""
    return replace(network, dropout=0.0) if hasattr(network, "dropout") else network


def _differences(theirs: Any, ours: Any) -> str:
    """The settings of another network, where ours are others."""
    if type(theirs) is not type(ours):
        return f": {theirs}"
    said = []
    for field in fields(theirs):
        value = getattr(theirs, field.name)
        if field.name != "dropout" and value != getattr(ours, field.name):
            words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            said.append(f"network.{field.name} {words or 'none'}")
    return ": " * bool(said) + ", ".join(said)


def fill(network: nn.Module, tensors: Tensors, prefix: str = "") -> None:
    """Give a network, sharded or not, the weights that are called `prefix` and their name."""
    network.load_state_dict(
        {
            name: shard_like(tensors[prefix + name], value)
            for name, value in network.state_dict().items()
        }
    )
