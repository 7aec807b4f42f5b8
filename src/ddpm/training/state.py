"""Everything that decides how a run goes on: weights, averaged weights, optimiser, step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.config import Config
from ddpm.errors import DdpmError, check
from ddpm.model import DataFacts, Ddpm
from ddpm.networks.sharding import in_parts, place, placed_like, whole
from ddpm.networks.unet import UNet
from ddpm.runs.checkpoint import save_checkpoint
from ddpm.runs.folder import checkpoint_path, load_newest, rotate
from ddpm.runtime import parallel
from ddpm.runtime.device import in_channels_last
from ddpm.runtime.randomness import derive_key
from ddpm.training.ema import Ema
from ddpm.training.resume_rules import check_same_run

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """The state of a run after `step` steps; (seed, step) decides all its random numbers."""

    config: Config
    facts: DataFacts
    device: torch.device
    step: int = 0
    seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    """Images and seconds that the weights it started from had been trained for."""

    def __post_init__(self) -> None:
        training = self.config.training
        torch.manual_seed(derive_key(training.seed, "init"))
        self.network = in_channels_last(self._build())
        self.ema = Ema(self.network, training.ema_decay)
        place(self.network)
        place(self.ema.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=training.lr, betas=(0.9, 0.999), eps=1e-8, fused=True
        )

    def _build(self) -> UNet:
        """A fresh network."""
        learns_variance = self.config.diffusion.build().learns_variance
        return self.config.network.build(self.facts.shape, learns_variance).to(self.device)

    def _model(self, network: UNet) -> Ddpm:
        """The model as it stands, with this network."""
        images = self.step * self.config.training.batch_size
        history: dict[str, Any] = {"step": self.step, "images": images, "seconds": self.seconds}
        if self.before:
            history["before"] = self.before
            for name, value in self.before.items():
                history[name] += value
        return Ddpm(self.config, self.facts, network, history)

    @property
    def model(self) -> Ddpm:
        """The model with the averaged weights, as it stands."""
        network = self.ema.network
        if in_parts():
            averages = {name: whole(value) for name, value in network.state_dict().items()}
            network = self._build().requires_grad_(False)
            network.load_state_dict(averages)
        return self._model(network)

    @property
    def nbytes(self) -> int:
        """About what a checkpoint takes on disk: weights, averages and two moments."""
        return 4 * sum(value.nbytes for value in self.network.state_dict().values())

    def save(self, run: Path) -> Path:
        """Write a checkpoint into `run` and drop the oldest; every process must ask for it."""
        tensors: dict[str, Tensor] = {}
        for prefix, network in (("network", self.network), ("ema", self.ema.network)):
            tensors.update({f"{prefix}.{k}": whole(v) for k, v in network.state_dict().items()})
        for name, parameter in self.network.named_parameters():
            for moment in MOMENTS:
                value = self.optimizer.state[parameter].get(moment, torch.zeros_like(parameter))
                tensors[f"{moment}.{name}"] = whole(value)
        path = checkpoint_path(run, self.step)
        parallel.on_main(lambda: self._write(path, tensors))
        return path

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """The checkpoint, unless it is spoilt."""
        check(
            all(bool(v.isfinite().all()) for k, v in tensors.items() if k.startswith("network.")),
            f"a weight is no longer finite at step {self.step}, so nothing is saved; resume from "
            "the last checkpoint with a lower --training.lr",
        )
        save_checkpoint(path, tensors, self._model(self.ema.network).describe())
        rotate(path.parents[1], path)

    def start_from(self, model: Ddpm) -> None:
        """Begin with the (averaged) weights of a trained model; step and optimiser start afresh.

        Raises:
            DdpmError: its network is not the one that this run trains.
        """
        theirs, ours = model.config, self.config
        check(
            model.facts.shape == self.facts.shape
            and replace(theirs.network, dropout=0.0) == replace(ours.network, dropout=0.0)
            and theirs.diffusion.build().learns_variance == ours.diffusion.build().learns_variance,
            f"the weights to start from are of another network ({theirs.network} for images of "
            f"shape {model.facts.shape}); give this run the same --network options",
        )
        check(
            theirs.diffusion.prediction_type == ours.diffusion.prediction_type,
            f"the weights to start from predict '{theirs.diffusion.prediction_type}', and this run "
            f"trains '{ours.diffusion.prediction_type}'; give it the same "
            "--diffusion.prediction-type",
        )
        self.before = {name: model.history.get(name, 0) for name in ("images", "seconds")}
        weights = model.network.state_dict()
        for network in (self.network, self.ema.network):
            fill(network, weights)

    def restore(self, run: Path) -> None:
        """Take up the newest good checkpoint of `run`.

        Raises:
            DdpmError: there is none, or it is of another model or run.
        """
        path, tensors, metadata = load_newest(run)
        try:
            stored = Config.from_dict(metadata["config"])
            shape, levels = metadata["facts"]["shape"], metadata["facts"]["grey_levels"]
            check(
                (tuple(shape), levels) == (tuple(self.facts.shape), self.facts.grey_levels),
                f"{path} was trained on images of shape {tuple(shape)} with {levels} grey levels, "
                f"but these have {tuple(self.facts.shape)} with {self.facts.grey_levels}",
            )
            name = str(metadata["facts"]["name"])
            check(
                name == self.facts.name,
                f"{path} was trained on '{name}', but these images are '{self.facts.name}'; resume "
                "with the same data or choose another --out",
            )
            check_same_run(stored, self.config, path)
            for prefix, network in (("network", self.network), ("ema", self.ema.network)):
                fill(network, tensors, f"{prefix}.")
            self.step = int(metadata["history"]["step"])
            self.before = metadata["history"].get("before", {})
            self.seconds = float(metadata["history"]["seconds"]) - self.before.get("seconds", 0)
            optimizer = self.optimizer.state_dict()
            optimizer["state"] = {
                i: self._moments(tensors, name, parameter)
                for i, (name, parameter) in enumerate(self.network.named_parameters())
            }
        except DdpmError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DdpmError(
                f"{path} does not hold a whole training state ({reason}), "
                "so training cannot go on from it; resume from a checkpoint of a training run"
            ) from error
        self.optimizer.load_state_dict(optimizer)

    def _moments(self, tensors: dict[str, Tensor], name: str, like: Tensor) -> dict[str, Any]:
        # The fused optimiser walks through memory, so moments must be laid out like the weights.
        moments: dict[str, Any] = {
            m: torch.empty_like(like.detach()).copy_(placed_like(tensors[f"{m}.{name}"], like))
            for m in MOMENTS
        }
        return {"step": torch.tensor(float(self.step)), **moments}


def fill(network: UNet, tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Give a network, in parts or not, the weights that are called `prefix` and their name."""
    network.load_state_dict(
        {
            name: placed_like(tensors[prefix + name], value)
            for name, value in network.state_dict().items()
        }
    )
