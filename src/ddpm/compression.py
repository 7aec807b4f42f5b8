"""What a trained model does with files: learn to code exact pixels, compress, decompress.

A part of `ddpm.model.Ddpm`, which has the rest of a model; the work is done in `ddpm.codec`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpm import codec
from ddpm.config import Config
from ddpm.data.images import ImageFormat, Indexed
from ddpm.data.inputs import ImageLike, as_images, as_indexed
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, VarianceType
from ddpm.errors import DdpmError, check
from ddpm.likelihood.denoising_error import DenoisingError
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.spectral_error import UNROTATED
from ddpm.runtime.device import Floats
from ddpm.runtime.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

UNMEASURED = (
    "this model's denoising error has not been measured; measure it once on training images with "
    "`ddpm measure RUN` (--data IMAGES, if it was imported) or model.measure(images)"
)
LEARNED = "compression needs a model with a fixed variance; this one learned its own"
UNCODED = (
    "this model has not learned to code exact pixels; it learns it on training images with "
    "`ddpm measure RUN` (--data IMAGES, if it was imported) or model.learn_coding(images)"
)


class Compression:
    """The codec of a model; what it needs of the model is declared here."""

    config: Config
    format: ImageFormat
    network: nn.Module
    diffusion: GaussianDiffusion
    denoising_error: DenoisingError | None
    coding: codec.Coding | None
    label: int | None
    guidance: float

    if TYPE_CHECKING:

        @property
        def device(self) -> torch.device: ...

        def denoiser(self, precision: Floats | None = None) -> Denoiser: ...

        def chain(self, plan: Plan | None = None) -> GaussianDiffusion: ...

    def learn_coding(
        self,
        images: ImageLike | Indexed,
        *,
        steps: int | None = None,
        stage: codec.LastStage | None = None,
        progress: Progress | None = None,
    ) -> codec.Coding:
        """Learn what compression needs besides the network, which is kept in the model and in what
        `save` writes: the network of the last stage (`ddpm.codec.last_stage`).

        A complete run has learned it in `train`; the file that a model came from is not changed
        here (`ddpm measure` does that).

        Args:
            images: what the model was trained on, or others of its format, as in `bound`.
            steps: of the training; chosen by the images' format by default. More make smaller
                files.
            stage: one that was trained elsewhere, instead of a training.
            progress: counts the training's steps.

        Raises:
            DdpmError: there are no images, or they are of another format, or the denoising error
                was not measured, or the model learned its variance.
        """
        check(not self.diffusion.learns_variance, LEARNED)
        images = as_indexed(images, self.format)
        self.coding = codec.learn_coding(
            self.diffusion,
            self.denoiser("fp32"),
            self._measured(),
            self.format,
            images,
            device=self.device,
            steps=steps,
            stage=stage,
            progress=progress,
        )
        return self.coding

    def _measured(self) -> DenoisingError:
        """The denoising error.

        Raises:
            DdpmError: it was not measured.
        """
        if self.denoising_error is None:
            raise DdpmError(UNMEASURED)
        return self.denoising_error

    def compress(
        self,
        images: ImageLike,
        *,
        names: Sequence[str] | None = None,
        steps: int | None = None,
        last_timestep: int | None = None,
        progress: Progress | None = None,
        spent: codec.Spent | None = None,
    ) -> bytes:
        """One file that holds the images without loss; every prefix of it decodes.

        Keep the file of the model: unlike `ddpm compress`, this does not pin a run's checkpoint.

        Args:
            images: uint8 grey levels, [c, h, w] each, of the model's channels and any sizes, or
                anything of `ddpm.data.inputs.ImageLike`.
            names: of the images, relative paths with slashes; left out by default.
            steps: network calls an image takes, 2..255; those that cost least by default.
            last_timestep: where the path ends and the exact pixels are coded; by default
                further down than where the file is smallest, for better beginnings.
            progress: counts (tile, step) pairs, to encode and to see that the file decodes.
            spent: filled in with where the bits went.

        Raises:
            DdpmError: images that the model cannot take, a number out of range, names that not
                every system can write, or the model was not measured.
        """
        images = as_images(images, self.format)
        return codec.compress(
            self.for_codec(),
            images,
            names=names,
            steps=steps,
            last_timestep=last_timestep,
            progress=progress,
            spent=spent,
        )

    def decompress(
        self,
        data: bytes | codec.File,
        *,
        only: Sequence[int] | None = None,
        reconstruct: codec.Reconstruct = "mean",
        progress: Progress | None = None,
    ) -> codec.Decompressed:
        """The images of a file, or the best guess from a prefix of it.

        Args:
            data: a file of `compress` or a prefix of it, as bytes or parsed (`codec.parse`).
            only: numbers of the images that are wanted; all by default.
            reconstruct: what a partial file is completed to: mean, the predicted x_0; sample,
                likely detail; average, the mean of several samples.
            progress: counts (tile, step) pairs.

        Raises:
            DdpmError: no such file, another version or model, or damage.
        """
        return codec.decompress(
            self.for_codec(), data, only=only, reconstruct=reconstruct, progress=progress
        )

    def for_codec(self) -> codec.CodecModel:
        """What the codec needs of the model.

        Raises:
            DdpmError: its denoising error was not measured, it has no last stage, or it learned
                its variance.
        """
        check(not self.diffusion.learns_variance, LEARNED)
        measured, coding = self._measured(), self.coding
        if coding is None:
            raise DdpmError(UNCODED)
        error = measured.spectral if coding.spectral else measured
        if error is None:
            raise DdpmError(UNROTATED)
        variance: VarianceType = "spectral" if coding.spectral else "analytic"
        return codec.CodecModel(
            chain=lambda timesteps: self.chain(Plan(None, timesteps, variance)),
            diffusion=self.diffusion,
            denoiser=self.denoiser("fp32"),
            network=self.network,
            error=error,
            coding=coding,
            format=self.format,
            classes=self.config.classes,
            given=None if self.label is None else (self.label, self.guidance),
        )
