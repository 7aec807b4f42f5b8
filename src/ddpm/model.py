"""One trained model: network, diffusion and data facts; and the verbs a user calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.config import Config, Precision
from ddpm.data.images import Shape, from_unit_range
from ddpm.data.open import open_data
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import DdpmError, check
from ddpm.likelihood.bound import Bound, evaluate_bound
from ddpm.likelihood.denoising_error import ErrorTable, load_errors, measure_errors
from ddpm.likelihood.trajectory import choose_timesteps
from ddpm.networks.unet import UNet
from ddpm.runs.checkpoint import save_checkpoint
from ddpm.runs.folder import errors_path, load_newest
from ddpm.runtime import parallel
from ddpm.runtime.device import best_device, in_channels_last, resolve_precision
from ddpm.runtime.randomness import Randomness
from ddpm.sampling import Callback, get_sampler

if TYPE_CHECKING:
    from ddpm.codec import Decompressed

MEASURED_IMAGES = 750  # training images on which a network's errors are measured


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
    source: tuple[Path, str] | None = None
    """The file it was loaded from and that file's checksum."""

    def __post_init__(self) -> None:
        self.diffusion = self.config.diffusion.build()
        self._errors: ErrorTable | None = None
        self._chains: dict[tuple[int | None, str, str | None], GaussianDiffusion] = {}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Ddpm:
        """Move the network; returns the model itself."""
        self.network.to(device)
        return self

    def with_precision(self, precision: Precision) -> Ddpm:
        """Have the network compute in fp32 or bf16; returns the model itself."""
        training = replace(self.config.training, precision=precision)
        self.config = replace(self.config, training=training)
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
        trajectory: str = "even",
        variance: str | None = None,
        batch_size: int = 64,
        callback: Callback | None = None,
        **options: float,
    ) -> UInt8[Tensor, "n c h w"]:
        """Draw images; of several processes each draws some, and all get all of them.

        Args:
            n: how many. The i-th of a seed is the same whatever n and the batch size.
            seed: which ones.
            sampler: ancestral (the paper's Algorithm 2), ddim, dpm-solver or langevin.
            steps: timesteps to visit; all T by default.
            trajectory, variance: see `chain`.
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
        diffusion = self.chain(steps, trajectory, variance)
        mine = parallel.share(n)
        images = torch.zeros(n, *self.facts.shape, dtype=torch.uint8)
        with torch.inference_mode():
            for first in mine[::batch_size]:
                index = torch.arange(first, min(first + batch_size, mine.stop))
                noise = self.noise(index, seed)
                start = noise(diffusion.num_timesteps)
                x = draw(diffusion, self.denoiser, start, noise, callback=callback, **options)
                images[index] = from_unit_range(x, self.facts.grey_levels).cpu()  # type: ignore[arg-type]
        parallel.merge(images)
        return images

    def errors(self, callback: Callable[[int], None] | None = None) -> ErrorTable:
        """The network's errors at every timestep, measured once and kept beside the checkpoint.

        They are measured on images the model was trained on, which must still be there.

        Args:
            callback: called with the number of (image, timestep) pairs just done.
        """
        table = self._errors
        if table is None and self.source is not None:
            table = load_errors(errors_path(self.source[0]), self.source[1])
        missing = parallel.highest(table is None)
        if table is None or missing:
            training = open_data(self.config.data, "train")
            order = Randomness(0, "errors").permutation(len(training))
            images = training[order[:MEASURED_IMAGES]].to(self.device)
            measured = table = measure_errors(
                self.diffusion, self.denoiser, images, self.facts.grey_levels, callback=callback
            )
            if self.source is not None:
                path, checksum = errors_path(self.source[0]), self.source[1]
                parallel.on_main(lambda: measured.save(path, checksum))
        self._errors = table
        return table

    def chain(
        self, steps: int | None = None, trajectory: str = "even", variance: str | None = None
    ) -> GaussianDiffusion:
        """The reverse chain of `steps` timesteps with the given variance.

        Args:
            steps: all T by default.
            trajectory: even, quadratic or optimal (of least bits; uses `errors`).
            variance: the model's own by default; any trained model can use fixed_small,
                fixed_large or analytic (uses `errors`) instead.

        Raises:
            DdpmError: steps out of range, an unknown name, or a variance that was not learned.
        """
        key = steps, trajectory, variance
        if key not in self._chains:  # finding the cheapest timesteps takes up to a second
            self._chains[key] = self._make_chain(*key)
        return self._chains[key]

    def _make_chain(
        self, steps: int | None, trajectory: str, variance: str | None
    ) -> GaussianDiffusion:
        diffusion = self.diffusion
        if variance is not None and variance != diffusion.variance_type:
            check(
                not diffusion.learns_variance and not variance.startswith("learned"),
                f"this model was trained with variance_type '{diffusion.variance_type}' and cannot "
                f"use '{variance}'",
            )
            table = self.errors().xstart_mse if variance == "analytic" else None
            diffusion = diffusion.with_variance(variance, table)  # type: ignore[arg-type]
        if steps is None:
            return diffusion
        errors = self.errors() if trajectory == "optimal" else None
        return diffusion.respace(choose_timesteps(trajectory, diffusion.schedule, steps, errors))

    def bound(
        self,
        images: UInt8[Tensor, "n c h w"],
        *,
        steps: int | None = None,
        trajectory: str = "even",
        variance: str | None = None,
        seed: int = 0,
        batch_size: int = 256,
        callback: Callable[[int], None] | None = None,
    ) -> Bound:
        """The variational bound of each image, term by term (Eq. 5); see `evaluate_bound`.

        Args:
            images: grey levels 0..grey_levels-1, of the model's shape.
            steps, trajectory, variance: see `chain`.

        Raises:
            DdpmError: images of another shape or with grey levels the model does not know.
        """
        shape, levels = tuple(images.shape[1:]), self.facts.grey_levels
        check(
            shape == tuple(self.facts.shape),
            f"this model knows images of shape {tuple(self.facts.shape)}, got {shape}",
        )
        highest = int(images.max())
        check(
            highest < levels,
            f"this model knows grey levels 0..{levels - 1}, but the images have {highest}",
        )
        return evaluate_bound(
            self.chain(steps, trajectory, variance),
            self.denoiser,
            images.to(self.device),
            levels,
            seed=seed,
            batch_size=batch_size,
            callback=callback,
        )

    def bits_per_dim(self, images: UInt8[Tensor, "n c h w"], **options: Any) -> float:
        """Mean bits/dim of the images: `bound(images, **options).mean`."""
        return self.bound(images, **options).mean

    def compress(self, images: Sequence[Tensor], **options: Any) -> bytes:
        """One file that holds the images to the last bit: `ddpm.codec.compress`."""
        from ddpm import codec  # the codec is built on this class

        return codec.compress(self, images, **options)

    def decompress(self, data: bytes, **options: Any) -> Decompressed:
        """The images of a file, or the best guess from its beginning: `ddpm.codec.decompress`."""
        from ddpm import codec

        return codec.decompress(self, data, **options)

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
    except DdpmError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DdpmError(f"{path} does not hold the model that it describes ({reason})") from error
    history = metadata.get("history", {})
    source = path, str(metadata["checksum"])
    return Ddpm(config, facts, network.requires_grad_(False), history, source)


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
) -> Ddpm:
    """Load a trained model.

    Args:
        path: a run's folder (its newest good checkpoint is taken) or a safetensors file.
        device: where to put it; a GPU if there is one by default.
        precision: of the network, fp32 or bf16; what it was trained in by default.

    Raises:
        DdpmError: there is nothing there, or it is damaged or foreign.
    """
    file, tensors, metadata = load_newest(Path(path).expanduser())
    model = model_from_checkpoint(tensors, metadata, file).to(device or best_device())
    return model if precision is None else model.with_precision(precision)
