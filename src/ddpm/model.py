"""One trained model: network, diffusion and data facts; and the verbs a user calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from ddpm.config import Config
from ddpm.data.images import Shape, from_unit_range
from ddpm.diffusion import Denoiser
from ddpm.errors import DdpmError, check
from ddpm.randomness import Randomness
from ddpm.sampling import Callback, get_sampler
from ddpm.unet import UNet


@dataclass(frozen=True)
class DataFacts:
    """What a model knows of the images it was trained on.

    Args:
        shape: (channels, height, width).
        grey_levels: values a pixel can take.
        name: of the data set.
    """

    shape: Shape
    grey_levels: int
    name: str


@dataclass
class Ddpm:
    """A trained model: what a checkpoint holds and what a user touches.

    Args:
        config: how it was made.
        facts: what it was made from.
        network: the U-Net, with the averaged weights.
        history: step, images seen and training time, as the run counted them.
    """

    config: Config
    facts: DataFacts
    network: UNet
    history: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.diffusion = self.config.diffusion.build()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Ddpm:
        """Move the network; returns the model itself."""
        self.network.to(device)
        return self

    @property
    def denoiser(self) -> Denoiser:
        """The network as the diffusion maths calls it: no gradient, no dropout, float32 out."""
        network = in_channels_last(self.network.eval())
        bf16 = resolve_precision(self.config.training.precision, self.device) == "bf16"

        def call(x: Tensor, t: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
            ):
                return network(x, t).float().contiguous()

        return call

    def noise(self, index: Tensor, seed: int) -> Callable[[int], Tensor]:
        """Noise of the images `index` of `seed`, for any time index; the same in any batch."""
        source = Randomness(seed, "sample")
        index = index.to(self.device)
        return lambda step: source.normal(index, self.facts.shape, step)

    def sample(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        sampler: str = "ancestral",
        steps: int | None = None,
        batch_size: int = 64,
        callback: Callback | None = None,
        **options: float,
    ) -> UInt8[Tensor, "n c h w"]:
        """Draw images.

        Args:
            n: how many. The i-th of a seed is the same whatever n and the batch size.
            seed: which ones.
            sampler: ancestral (the paper's Algorithm 2) or ddim.
            steps: network calls an image, evenly spaced over the chain; all T by default.
            batch_size: images at a time.
            callback: sees every step of every batch (`ddpm.sampling.SampleState`).
            options: of the sampler, such as eta for ddim.

        Returns:
            uint8 grey levels, 0..grey_levels-1.

        Raises:
            DdpmError: an unknown sampler or a number out of range.
        """
        check(n >= 1, f"the number of samples must be at least 1, got {n}")
        check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
        check(seed >= 0, f"the seed must be at least 0, got {seed}")
        draw = get_sampler(sampler)
        diffusion = self.diffusion
        if steps is not None:
            diffusion = diffusion.respace(diffusion.schedule.even_timesteps(steps))
        batches = []
        with torch.inference_mode():
            for index in torch.arange(n).split(batch_size):
                noise = self.noise(index, seed)
                start = noise(diffusion.num_timesteps)
                x = draw(diffusion, self.denoiser, start, noise, callback=callback, **options)
                batches.append(from_unit_range(x, self.facts.grey_levels).cpu())  # type: ignore[arg-type]
        return torch.cat(batches)

    def save(self, path: str | Path) -> None:
        """Write the averaged weights and the description to one safetensors file."""
        tensors = {f"ema.{name}": value for name, value in self.network.state_dict().items()}
        save_checkpoint(Path(path), tensors, self.describe())

    def describe(self) -> dict[str, Any]:
        """What a checkpoint's metadata says of the model."""
        return {
            "config": self.config.to_dict(),
            "facts": asdict(self.facts),
            "history": self.history,
        }


def in_channels_last(network: UNet) -> UNet:
    """Lay the weights out as the convolutions like them best."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def resolve_precision(precision: str, device: torch.device) -> str:
    """What `auto` stands for on this device: bf16 where the hardware multiplies it faster."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "fp32"


def best_device() -> torch.device:
    """A CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model_from_checkpoint(tensors: dict[str, Tensor], metadata: dict[str, Any], path: Path) -> Ddpm:
    """Build the model that a checkpoint describes, with its averaged weights."""
    try:
        facts = DataFacts(
            tuple(metadata["facts"]["shape"]),
            int(metadata["facts"]["grey_levels"]),
            str(metadata["facts"]["name"]),
        )
        config = Config.from_dict(metadata["config"])
        network = config.network.build(facts.shape, config.diffusion.build().learns_variance)
        weights = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
        network.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DdpmError(f"{path} does not hold the model that it describes ({reason})") from error
    return Ddpm(config, facts, network.requires_grad_(False), metadata.get("history", {}))


def load(path: str | Path, device: str | torch.device | None = None) -> Ddpm:
    """Load a trained model.

    Args:
        path: a run's folder (its newest checkpoint is taken) or a safetensors file.
        device: where to put it; a GPU if there is one by default.

    Raises:
        DdpmError: there is nothing there, or it is damaged or foreign.
    """
    file = find_checkpoint(Path(path).expanduser())
    tensors, metadata = load_checkpoint(file)
    return model_from_checkpoint(tensors, metadata, file).to(device or best_device())
