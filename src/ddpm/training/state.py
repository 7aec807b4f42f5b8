"""Everything that decides how a run goes on: weights, averaged weights, optimiser, step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.checkpoint import (
    checkpoint_path,
    load_newest,
    rotate,
    save_checkpoint,
)
from ddpm.config import Config
from ddpm.errors import DdpmError, check
from ddpm.model import DataFacts, Ddpm, in_channels_last
from ddpm.randomness import derive_key
from ddpm.training.ema import Ema
from ddpm.training.resume import check_same_run

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """The state of a run after `step` steps; (seed, step) decides all its random numbers."""

    config: Config
    facts: DataFacts
    device: torch.device
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        training = self.config.training
        torch.manual_seed(derive_key(training.seed, "init"))
        learns_variance = self.config.diffusion.build().learns_variance
        network = self.config.network.build(self.facts.shape, learns_variance)
        self.network = in_channels_last(network.to(self.device))
        self.ema = Ema(self.network, training.ema_decay)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=training.lr, betas=(0.9, 0.999), eps=1e-8, fused=True
        )

    @property
    def model(self) -> Ddpm:
        """The model with the averaged weights, as it stands."""
        images = self.step * self.config.training.batch_size
        history = {"step": self.step, "images": images, "seconds": self.seconds}
        return Ddpm(self.config, self.facts, self.ema.network, history)

    @property
    def nbytes(self) -> int:
        """About what a checkpoint takes on disk: weights, averages and two moments."""
        return 4 * sum(value.nbytes for value in self.network.state_dict().values())

    def save(self, run: Path) -> Path:
        """Write a checkpoint into `run` and drop the oldest."""
        check(
            all(bool(torch.isfinite(p).all()) for p in self.network.parameters()),
            f"a weight is no longer finite at step {self.step}, so nothing is saved; resume from "
            "the last checkpoint with a lower --training.lr",
        )
        tensors: dict[str, Tensor] = {}
        for prefix, network in (("network", self.network), ("ema", self.ema.network)):
            tensors.update({f"{prefix}.{k}": v for k, v in network.state_dict().items()})
        for name, parameter in self.network.named_parameters():
            for moment in MOMENTS:
                value = self.optimizer.state[parameter].get(moment, torch.zeros_like(parameter))
                tensors[f"{moment}.{name}"] = value
        path = checkpoint_path(run, self.step)
        save_checkpoint(path, tensors, self.model.describe())
        rotate(run, path)
        return path

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
                network.load_state_dict({k: tensors[f"{prefix}.{k}"] for k in network.state_dict()})
            self.step = int(metadata["history"]["step"])
            self.seconds = float(metadata["history"]["seconds"])
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
            m: torch.empty_like(like.detach()).copy_(tensors[f"{m}.{name}"]) for m in MOMENTS
        }
        return {"step": torch.tensor(float(self.step)), **moments}
