"""One trained model: network, diffusion, image format, denoising error; and the verbs a user calls.

A model is one file. `load` reads it, and no verb reads anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from ddpm import codec
from ddpm.config import Config
from ddpm.data.images import ImageFormat, Indexed
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.diffusion.schedule import schedule_from_betas
from ddpm.errors import DdpmError, check
from ddpm.likelihood.bound import Bound, evaluate_bound
from ddpm.likelihood.denoising_error import IMAGES, DenoisingError, measure_denoising_error
from ddpm.likelihood.plan import Plan
from ddpm.runs.checkpoint import Tensors, load_checkpoint, save_checkpoint
from ddpm.runs.folder import load_newest
from ddpm.runs.history import History
from ddpm.runtime import parallel
from ddpm.runtime.device import (
    Precision,
    best_device,
    in_channels_last,
    in_precision,
    resolve_precision,
)
from ddpm.runtime.progress import Counter, Progress
from ddpm.runtime.randomness import Randomness
from ddpm.sampling import Callback, Sampler, get_sampler

UNMEASURED = (
    "this model's denoising error has not been measured; measure it once on training images: "
    "ddpm measure RUN, or model.measure(images)"
)
log = logging.getLogger("ddpm")


@dataclass
class Ddpm:
    """A trained model: what a checkpoint holds and what a user touches.

    Args:
        config: how it was made.
        format: of its images.
        network: with the averaged weights.
        diffusion: the whole chain; what the configuration says by default.
        history: how long it was trained, and on what.
        error: its denoising error, once it was measured: an optimal trajectory, the analytic
            variance and compression need it.
        precision: in which the network computes; what it was trained in by default.
    """

    config: Config
    format: ImageFormat
    network: nn.Module
    diffusion: GaussianDiffusion = None  # type: ignore[assignment]
    history: History = field(default_factory=History)
    error: DenoisingError | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.diffusion is None:
            self.diffusion = self.config.diffusion.build()
        if self.precision is None:
            self.precision = self.config.training.precision
        self.network = in_channels_last(self.network.eval())
        self._chains: dict[Plan, GaussianDiffusion] = {}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def num_parameters(self) -> int:
        """How many numbers training set."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def to(self, device: str | torch.device) -> Ddpm:
        """Move the network; returns the model itself."""
        self.network.to(device)
        return self

    def denoiser(self) -> Denoiser:
        """The network as the diffusion maths calls it: no gradient, no dropout, float32 out."""
        forward = in_precision(self.network, self._precision())

        def call(x: Tensor, t: Tensor) -> Tensor:
            with torch.inference_mode():
                return forward(x, t)

        return call

    def _precision(self) -> Any:
        """fp32 or bf16."""
        return resolve_precision(self.precision or "auto", self.device)

    def noise(self, index: Tensor, seed: int) -> Callable[[int], Tensor]:
        """Noise of the images `index` of `seed`, for any time index; the same in any batch."""
        source = Randomness(seed, "sample")
        index = index.to(self.device)
        return lambda step: source.normal(index, self.format.shape, step)

    def chain(self, plan: Plan | None = None) -> GaussianDiffusion:
        """The reverse chain of a plan; the whole one by default.

        Raises:
            DdpmError: the plan does not fit the model, or its denoising error was not measured.
        """
        plan = plan or Plan()
        check(self.error is not None or not plan.needs_error(self.diffusion), UNMEASURED)
        if plan not in self._chains:  # finding the cheapest timesteps takes up to a second
            self._chains[plan] = plan.chain(self.diffusion, self.error)
        return self._chains[plan]

    def sample(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        sampler: str | Sampler = "ancestral",
        plan: Plan | None = None,
        batch_size: int = 64,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> UInt8[Tensor, "n c h w"]:
        """Draw images; of several processes each draws some, and all get all of them.

        Args:
            n: how many. The i-th of a seed is the same whatever n and the batch size.
            seed: which ones.
            sampler: ancestral (the paper's Algorithm 2), ddim, dpm-solver or langevin, another
                registered name, or any `Sampler`, such as `Ddim(eta=0.5)`.
            plan: timesteps and variance; all T and the model's own by default.
            batch_size: images at a time.
            callback: sees every step of every batch (`ddpm.SampleState`).
            progress: counts network calls of this process.

        Returns:
            uint8 grey levels.

        Raises:
            DdpmError: an unknown sampler, a number out of range, or a plan that does not fit.
        """
        check(n >= 1, f"the number of samples must be at least 1, got {n}")
        check(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
        check(seed >= 0, f"the seed must be at least 0, got {seed}")
        draw, chain = get_sampler(sampler), self.chain(plan)
        mine = parallel.share(n)
        calls = getattr(draw, "calls_per_step", 1) * chain.num_timesteps
        counter = Counter(progress, len(mine[::batch_size]) * calls, "sampling")
        forward = self.denoiser()

        def denoiser(x: Tensor, t: Tensor) -> Tensor:
            output = forward(x, t)
            counter.advance()
            return output

        images = torch.zeros(n, *self.format.shape, dtype=torch.uint8)
        with torch.inference_mode():
            for first in mine[::batch_size]:
                index = torch.arange(first, min(first + batch_size, mine.stop))
                noise = self.noise(index, seed)
                start = noise(chain.num_timesteps)
                shown = None if callback is None else _numbered(callback, first)
                x = draw(chain, denoiser, start, noise, callback=shown)
                images[index] = self.format.from_unit(x).cpu()
        parallel.merge(images)
        return images

    def bound(
        self,
        images: Indexed,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> Bound:
        """The variational bound of each image, term by term (Eq. 5).

        Args:
            images: uint8 [n, c, h, w] of the model's format, or a data source, of which one batch
                is read at a time.
            plan: timesteps and variance; all T and the model's own by default.
            seed: decides the noise, which depends on (seed, image, t) only.
            batch_size: images in one network call; of several processes each takes some calls.
            progress: counts (image, timestep) pairs.

        Raises:
            DdpmError: images of another format, or a plan that does not fit.
        """
        return evaluate_bound(
            self.chain(plan),
            self.denoiser(),
            images,
            self.format,
            seed=seed,
            batch_size=batch_size,
            device=self.device,
            progress=progress,
        )

    def bits_per_dim(
        self,
        images: Indexed,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> float:
        """Mean bits/dim of the images; the arguments are those of `bound`."""
        bound = self.bound(images, plan=plan, seed=seed, batch_size=batch_size, progress=progress)
        return bound.mean

    def measure(
        self,
        images: Indexed,
        *,
        count: int = IMAGES,
        batch_size: int = 256,
        progress: Progress | None = None,
    ) -> DenoisingError:
        """Measure the denoising error, which is kept in the model and in what `save` writes.

        Args:
            images: what the model was trained on, or others of its format; of more than `count`
                some are picked.
            count: images to measure on.
            batch_size: images in one network call; of several processes each takes some calls.
            progress: counts (image, timestep) pairs.

        Raises:
            DdpmError: there are no images, or they are of another format.
        """
        order = Randomness(0, "errors").permutation(len(images))
        self.error = measure_denoising_error(
            self.diffusion,
            self.denoiser(),
            images[order[:count]].to(self.device),
            self.format,
            batch_size=batch_size,
            progress=progress,
        )
        self._chains.clear()
        return self.error

    def compress(
        self,
        images: Sequence[UInt8[Tensor, "c _h _w"]],
        *,
        steps: int | None = None,
        progress: Progress | None = None,
        spent: codec.Spent | None = None,
    ) -> bytes:
        """One file that holds the images to the last bit; every prefix of it decodes.

        Args:
            images: grey levels of the model's channels, of any sizes.
            steps: network calls an image takes; chosen by the amount of data by default.
            progress: counts (tile, step) pairs, to encode and to see that the file decodes.
            spent: is told where the bits went.

        Raises:
            DdpmError: images that the model cannot take, or its denoising error was not measured.
        """
        return codec.compress(self.for_codec(), images, steps=steps, progress=progress, spent=spent)

    def decompress(
        self,
        data: bytes | codec.File,
        *,
        sample: bool = False,
        progress: Progress | None = None,
    ) -> codec.Decompressed:
        """The images of a file, or the best guess from its beginning.

        Args:
            data: a file of `compress` or a prefix of it, as bytes or parsed (`codec.parse`).
            sample: complete a partial file with likely detail instead of the least error.
            progress: counts (tile, step) pairs.

        Raises:
            DdpmError: no such file, another version or model, or damage.
        """
        return codec.decompress(self.for_codec(), data, sample=sample, progress=progress)

    def for_codec(self) -> codec.CodecModel:
        """What the codec needs of the model.

        Raises:
            DdpmError: its denoising error was not measured, or it learned its variance.
        """
        if self.error is None:
            raise DdpmError(UNMEASURED)
        return codec.CodecModel(
            chain=lambda steps: self.chain(Plan(steps, "optimal", "analytic")),
            diffusion=self.diffusion,
            denoiser=self.denoiser(),
            network=self.network,
            error=self.error,
            format=self.format,
            precision=self._precision(),
        )

    def save(self, path: str | Path) -> None:
        """Write everything that the model is to one safetensors file.

        Raises:
            DdpmError: there is no room for it, or no permission to write there.
        """
        save_checkpoint(Path(path), self.tensors(), self.describe())

    def tensors(self) -> Tensors:
        """What a file holds of the model: averaged weights, betas, denoising error."""
        tensors = {f"ema.{name}": value for name, value in self.network.state_dict().items()}
        tensors["diffusion.betas"] = torch.from_numpy(self.diffusion.schedule.betas.copy())
        return tensors | (self.error.tensors() if self.error is not None else {})

    def describe(self) -> dict[str, Any]:
        """What a file's metadata says of the model."""
        return description(self.config, self.format, self.history)


def description(config: Config, image_format: ImageFormat, history: History) -> dict[str, Any]:
    """The metadata of a checkpoint, apart from its checksums.

    Raises:
        DdpmError: the configuration cannot be stored.
    """
    return {
        "config": config.to_dict(),
        "images": asdict(image_format),
        "history": asdict(history),
    }


def _numbered(callback: Callback, first: int) -> Callback:
    """A callback that is told the number of the batch's first image."""
    return lambda state: callback(replace(state, first=first))


def model_from_checkpoint(tensors: Tensors, metadata: dict[str, Any], path: Path) -> Ddpm:
    """Build the model that a checkpoint describes, with its averaged weights.

    Raises:
        DdpmError: it needs a kind that is not registered, or does not hold what it describes.
    """
    try:
        image_format = ImageFormat(**metadata["images"])
        config = Config.from_dict(metadata["config"])
        network = config.build_network(image_format.shape)
        weights = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
        network.load_state_dict(weights)
        diffusion = config.diffusion.build()
        if "diffusion.betas" in tensors:  # not in format 1
            schedule = schedule_from_betas(tensors["diffusion.betas"].numpy())
            diffusion = replace(diffusion, schedule=schedule)
        history = History(**metadata["history"])
        measured = DenoisingError.from_tensors(tensors)
    except DdpmError as error:
        raise DdpmError(f"{path} cannot be loaded: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DdpmError(f"{path} does not hold the model that it describes ({reason})") from error
    return Ddpm(config, image_format, network.requires_grad_(False), diffusion, history, measured)


def load(
    path: str | Path,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
) -> Ddpm:
    """Load a trained model.

    Args:
        path: a run's folder (its newest good checkpoint is taken), a safetensors file, or the name
            of a model that comes with the package.
        device: where to put it; a GPU if there is one by default.
        precision: of the network, fp32 or bf16; what it was trained in by default.

    Raises:
        DdpmError: there is nothing there, or it is damaged, foreign, or needs a module to be
            imported first.
    """
    file, tensors, metadata = load_newest(Path(path).expanduser())
    model = model_from_checkpoint(tensors, metadata, file).to(device or best_device())
    return model if precision is None else replace(model, precision=precision)


def store_error(model: Ddpm, path: str | Path) -> Path:
    """Add a model's denoising error to the file it was loaded from.

    Args:
        model: just measured.
        path: what `load` was given.

    Returns:
        The file.

    Raises:
        DdpmError: the file cannot be written; it stays as it was.
    """
    assert model.error is not None
    file, _, _ = load_newest(Path(path).expanduser())
    tensors, metadata = load_checkpoint(file, training=True)
    described = {key: metadata[key] for key in ("config", "images", "history")}
    save_checkpoint(file, tensors | model.error.tensors(), described)
    return file
