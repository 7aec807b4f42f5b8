"""One trained model: network, diffusion, image format, denoising error; and the verbs a user calls.

A model is one file (`ddpm.loading`), and no verb reads anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ddpm.codec import Coding
from ddpm.compression import UNMEASURED, Compression
from ddpm.config import Config
from ddpm.data.images import ImageFormat, Indexed
from ddpm.data.inputs import ImageLike, as_indexed
from ddpm.data.labels import check_given
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import check, whole_number
from ddpm.likelihood.bound import Bound, evaluate_bound
from ddpm.likelihood.denoising_error import IMAGES, DenoisingError, measure_denoising_error
from ddpm.likelihood.held_out import HeldOut
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.representation import activations
from ddpm.likelihood.sampling_plan import sampler_and_plan
from ddpm.networks.activations import layer_names
from ddpm.networks.guidance import guided
from ddpm.runs.checkpoint import description, model_tensors, save_checkpoint
from ddpm.runs.history import History
from ddpm.runtime import parallel
from ddpm.runtime.device import Floats, Precision, in_channels_last, in_precision, resolve_precision
from ddpm.runtime.paths import user_path
from ddpm.runtime.probe import Work, faster_precision
from ddpm.runtime.progress import Progress
from ddpm.runtime.randomness import Randomness
from ddpm.sampling import Callback, Sampler
from ddpm.sampling.drawing import draw_batches
from ddpm.sampling.elsewhere import predicted_noise, without_gradient

DRAWN = 64  # images of 32x32 pixels that are drawn at a time


@dataclass
class Ddpm(Compression):
    """A trained model: what a checkpoint holds and what a user touches.

    Args:
        config: how it was made.
        format: of its images.
        network: with the averaged weights.
        diffusion: the whole chain; what the configuration says by default.
        history: how long it was trained, and on what.
        denoising_error: once it was measured: an optimal trajectory, the analytic variance and
            compression need it.
        coding: once it was learned: what compression needs besides.
        held_out: once it was measured: bits/dim of images that it was not trained on.
        precision: in which the network computes; what the configuration says by default. With auto
            images are drawn on a CPU in the faster one (`drawing_precision`), and all else is
            computed in fp32 there.
        label: of the class that everything is done with, for a conditional model; None for the null
            class, which stands for none (see `given`).
        guidance: s of u + s (c - u), where c is the network's output with the class and u without.

    Raises:
        DdpmError: a class that the model does not have, or a guidance that has no meaning.
    """

    config: Config
    format: ImageFormat
    network: nn.Module
    diffusion: GaussianDiffusion = None  # type: ignore[assignment]
    history: History = field(default_factory=History)
    denoising_error: DenoisingError | None = None
    coding: Coding | None = None
    held_out: HeldOut | None = None
    precision: Precision | None = None
    label: int | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        self.label, self.guidance = check_given(self.class_names, self.label, self.guidance)
        self._null = self  # what `given` begins with
        if self.diffusion is None:
            self.diffusion = self.config.diffusion.build()
        self.precision = self.precision or self.config.training.precision
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

    @property
    def layers(self) -> list[str]:
        """What the network calls its layers, those that see the image; `features` reads them."""
        return layer_names(self.network)

    def to(self, device: str | torch.device) -> Ddpm:
        """Move the network; returns the model itself."""
        self.network.to(device)
        return self

    def denoiser(self, precision: Floats | None = None) -> Denoiser:
        """The network as the diffusion maths calls it: no gradient, no dropout, float32 out.

        Of a conditional model it is the network of the class that was given, or of the null class.

        Args:
            precision: fp32 or bf16; the model's own by default, in which no stopwatch has a say.

        Raises:
            DdpmError: when it is called with an x that needs a gradient.
        """
        precision, null = precision or self._precision(), self.config.classes
        if null:
            label = null if self.label is None else self.label
            return without_gradient(guided(self.network, label, null, self.guidance, precision))
        return without_gradient(in_precision(self.network, precision))

    def epsilon(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The noise in x_t at times t, [b] or one for all: what other libraries' samplers ask for.

        See `ddpm.sampling.elsewhere.predicted_noise`.
        """
        return predicted_noise(self.diffusion, self.denoiser(), x, t)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes of a conditional model are called: their numbers, where they have no
        names; () for a model without classes."""
        return self.config.data.class_names or tuple(map(str, range(self.config.classes)))

    def given(self, label: int | str | None, guidance: float = 1.0) -> Ddpm:
        """The same model with a class: all that it does is then done with it.

        The network is shared, and so is the denoising error, which is that of the null class until
        `measure` measures that of the class.

        Args:
            label: a number from 0, or a name (a name wins over a number); None for the null class.
            guidance: s of classifier-free guidance, u + s (c - u), finite and at least 0: 1 is the
                class alone, 0 no class, and more is more of what tells the class from others. In
                the other convention, (1 + w) c - w u, w is s - 1.

        Raises:
            DdpmError: the model has no classes or not this one, or a guidance that has no meaning.
        """
        label, guidance = check_given(self.class_names, label, guidance)
        if label is None and self._null.label is None:
            return self._null
        model = replace(self._null, label=label, guidance=guidance)
        model._null = self._null
        return model

    def _precision(self) -> Floats:
        """In which bits are counted."""
        return resolve_precision(self.precision or "auto", self.device)

    def drawing_precision(self) -> Floats:
        """In which images are drawn: the model's own; with auto, on a CPU, the faster one.

        Which one that is is measured once for a machine and a network, in under 3 seconds; of
        several processes every one must ask (`ddpm.runtime.probe`).
        """
        size, shape = self.format.batch(DRAWN), self.format.shape
        work = Work(self.network, self.config.network, shape, size)
        return faster_precision(self.precision or "auto", self.device, work)

    def noise(self, index: Tensor, seed: int) -> Callable[[int], Tensor]:
        """Noise of the images `index` of `seed`; the same in any batch.

        Args:
            index: [b], numbers of the images.
            seed: which images.

        Returns:
            A function of a time index that gives float32 [b, c, h, w].
        """
        source, index = Randomness(seed, "sample"), index.to(self.device)
        return lambda step: source.normal(index, self.format.shape, step)

    def chain(self, plan: Plan | None = None) -> GaussianDiffusion:
        """The reverse chain of a plan; the whole one by default.

        Args:
            plan: timesteps and variance.

        Raises:
            DdpmError: the plan does not fit the model, or its denoising error was not measured.
        """
        plan = plan or Plan()
        measured = self.denoising_error is not None
        check(measured or not plan.needs_denoising_error(self.diffusion), UNMEASURED)
        if plan not in self._chains:  # finding the cheapest timesteps takes up to a second
            self._chains[plan] = plan.chain(self.diffusion, self.denoising_error)
        return self._chains[plan]

    def sample(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        first: int = 0,
        sampler: str | Sampler = "ancestral",
        plan: Plan | None = None,
        steps: int | None = None,
        eta: float | None = None,
        batch_size: int | None = None,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> UInt8[Tensor, "n c h w"]:
        """Draw images; of several processes each draws some, and all get all of them.

        Args:
            n: how many, at least 1. The i-th of a seed is the same whatever n and the batch size.
            seed: which ones, at least 0.
            first: the number of the first image, at least 0.
            sampler: ancestral (the paper's Algorithm 2), ddim, dpm-solver, unipc, heun, langevin,
                another registered name, or any `Sampler`, such as `Ddim(eta=0.5)`.
            plan: timesteps and variance; all T and the model's own by default.
            steps: short for a plan of that many steps.
            eta: short for `Ddim(eta)`, with the sampler ddim.
            batch_size: images at a time, at least 1; 64 by default, or fewer large ones
                (`ImageFormat.batch`).
            callback: sees every step of every batch (`ddpm.SampleState`).
            progress: counts network calls of this process.

        Returns:
            uint8 grey levels, [n, c, h, w].

        Raises:
            DdpmError: an unknown sampler, a number out of range, or a plan that does not fit.
        """
        n = whole_number("the number of samples", n, 1)
        first = whole_number("the number of the first sample", first, 0)
        draw, plan = self.plan_samples(sampler, plan, steps, eta)
        images = torch.zeros(n, *self.format.shape, dtype=torch.uint8)
        parts, size = (range(first, first + n), draw, plan), batch_size
        for index, batch in self.draw(
            *parts, seed=seed, batch_size=size, callback=callback, progress=progress
        ):
            images[index - first] = batch
        parallel.all_reduce_sum(images)
        return images

    def draw(
        self,
        numbers: Sequence[int],
        sampler: Sampler,
        plan: Plan,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        needed: Callable[[int], bool] | None = None,
        callback: Callback | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Tensor, UInt8[Tensor, "b c h w"]]]:
        """Draw images batch by batch; of several processes each draws some.

        Args:
            numbers: which images of the seed.
            sampler, plan: as `plan_samples` gives them.
            seed, batch_size, callback, progress: see `sample`.
            needed: asked of each number just before it is drawn, and fills up the batches; see
                `ddpm.sampling.drawing.draw_batches`.

        Yields:
            The numbers of a batch, a long vector, and its images.

        Raises:
            DdpmError: a number out of range, or a plan that does not fit.
        """
        size = self.format.batch(DRAWN) if batch_size is None else batch_size
        whole_number("batch_size", size, 1)
        whole_number("the seed", seed, 0)
        denoiser = self.denoiser(self.drawing_precision())
        parts = self.chain(plan), denoiser, sampler, lambda index: self.noise(index, seed)
        for index, x in draw_batches(*parts, numbers, size, needed, callback, progress):
            yield index, self.format.from_unit(x).cpu()

    def plan_samples(
        self,
        sampler: str | Sampler = "ancestral",
        plan: Plan | None = None,
        steps: int | None = None,
        eta: float | None = None,
    ) -> tuple[Sampler, Plan]:
        """What `sample` makes of its arguments: the sampler, and the plan without gaps.

        The calibration is the null class's and takes away some of what a class alone adds, so that
        a class without guidance is drawn without it where nothing is said.

        Raises:
            DdpmError: an unknown sampler, or arguments that do not go together.
        """
        parts = self.diffusion, self.denoising_error, sampler, plan, steps, eta
        return sampler_and_plan(*parts, calibrate=self.label is None or self.guidance > 1)

    def bound(
        self,
        images: ImageLike | Indexed,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Bound:
        """The variational bound of each image, term by term (Eq. 5).

        Args:
            images: uint8 [n, c, h, w] of the model's format, a data source, of which one batch is
                read at a time, or anything of `ddpm.data.inputs.ImageLike`.
            plan: timesteps and variance; all T and the model's own by default.
            seed: decides the noise, which depends on (seed, image, t) only.
            batch_size: images in one network call, 256 by default, or fewer large ones; of several
                processes each takes some calls.
            progress: counts (image, timestep) pairs.

        Raises:
            DdpmError: images of another format, or a plan that does not fit.
        """
        parts = self.chain(plan), self.denoiser(), as_indexed(images, self.format), self.format
        return evaluate_bound(
            *parts, seed=seed, batch_size=batch_size, device=self.device, progress=progress
        )

    def bits_per_dim(
        self,
        images: ImageLike | Indexed,
        *,
        plan: Plan | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> float:
        """Mean bits/dim of the images; the arguments are those of `bound`."""
        bound = self.bound(images, plan=plan, seed=seed, batch_size=batch_size, progress=progress)
        return bound.mean

    def features(
        self,
        images: ImageLike | Indexed,
        t: int,
        layer: str,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "n channels"]:
        """What a layer of the network holds of each image after t steps of diffusion (Eq. 4).

        Args:
            images: of the model's format, as in `bound`.
            t: steps of diffusion, 1..T.
            layer: one of `layers`, or a part of one.
            seed: decides the noise, which depends on (seed, the image's pixels) only.
            batch_size: images in one network call, 256 by default, or fewer large ones.
            progress: counts images.

        Returns:
            Its output, averaged over space: float32 [n, channels], on the CPU.

        Raises:
            DdpmError: no such layer, t out of range, or images of another format.
        """
        source, device = as_indexed(images, self.format), self.device
        parts = self.network, self.denoiser(), self.diffusion, self.format, source, t, [layer]
        return activations(
            *parts, seed=seed, batch_size=batch_size, device=device, progress=progress
        )[layer]

    def measure(
        self,
        images: ImageLike | Indexed,
        *,
        count: int = IMAGES,
        timesteps: int | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> DenoisingError:
        """Measure the denoising error, which is kept in the model and in what `save` writes.

        A complete run was measured by `train`; the file that a model came from is not changed here
        (`ddpm measure` does that).

        Args:
            images: what the model was trained on, or others of its format, as in `bound`; of
                more than `count` some are picked.
            count: images to measure on, at least 1.
            timesteps: at how many of the T it is measured, 2..T; between them it is interpolated.
                Some 130 of 1,000 by default.
            batch_size: images in one network call, 256 by default, or fewer large ones; of several
                processes each takes some timesteps.
            progress: counts (image, timestep) pairs.

        Raises:
            DdpmError: there are no images, or they are of another format, or a number is out of
                range.
        """
        check(count >= 1, f"the number of images must be at least 1, got {count}")
        images = as_indexed(images, self.format)
        order = Randomness(0, "errors").permutation(len(images))  # the word decides which ones
        picked = images[order[:count]].to(self.device)
        parts = self.diffusion, self.denoiser(), picked, self.format
        self.denoising_error = measure_denoising_error(
            *parts, timesteps=timesteps, batch_size=batch_size, progress=progress
        )
        self._chains.clear()
        return self.denoising_error

    def save(self, path: str | Path) -> None:
        """Write everything that the model is to one safetensors file.

        Args:
            path: the file, whose folder is made if need be.

        Raises:
            DdpmError: there is no room for it, no permission to write there, or a class is given.
        """
        check(
            self.label is None,
            "a file holds a model for all its classes; save it without one (model.given(None))",
        )
        parts = self.denoising_error, self.coding, self.held_out
        tensors = model_tensors(self.network.state_dict(), self.diffusion, *parts)
        described = description(self.config, self.format, self.history)
        save_checkpoint(user_path(path), tensors, described)
