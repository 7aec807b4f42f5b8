"""Denoising: the x_0 predicted from every t of one image, and how far it is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure as Plot
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ddpm.data.images import Indexed, unit_to_byte_rmse
from ddpm.data.inputs import ImageLike
from ddpm.data.open import Split
from ddpm.errors import whole_number
from ddpm.figures.figure import Drawn, Figure, at_a_time
from ddpm.figures.grid import to_picture
from ddpm.figures.layout import labelled_grid, stacked
from ddpm.figures.style import styled
from ddpm.latents import diffuse
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter, Progress

DPI = 120  # of `to_picture`


@dataclass(frozen=True)
class Predictions:
    """What the network makes of one image at every t.

    Args:
        shown: [m], the t whose pictures are kept, rising.
        noisy: uint8 [m, c, h, w], x_t at those.
        predicted: uint8 [m, c, h, w], x^_0 at those.
        rmse: [T], error of x^_0 on the scale of 0..255 at t = 1..T.
    """

    shown: list[int]
    noisy: UInt8[Tensor, "m c h w"]
    predicted: UInt8[Tensor, "m c h w"]
    rmse: Float[np.ndarray, " T"]


@dataclass(frozen=True)
class Denoising(Figure):
    """x^_0 (Eq. 15) from every t of one image, and the network's error."""

    shows: ClassVar[str] = "x^_0 predicted from every t of one image, and the network's error"
    split: ClassVar[Split | None] = "test"

    columns: int = 12
    """How many t are shown as pictures, evenly spaced from 1 to T; the error is drawn for all."""
    seed: int = 0
    """Decides the noise, which is the same at every t."""
    batch_size: int | None = None
    """Timesteps at a time; 64 by default, or fewer of large images."""

    @property
    def wanted(self) -> int | None:
        """See `Figure.wanted`."""
        return 1

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("columns", self.columns, 2)
        whole_number("the seed", self.seed, 0)
        whole_number("batch_size", at_a_time(model, self.batch_size), 1)

    def predictions(
        self,
        model: Ddpm,
        image: UInt8[Tensor, "1 c h w"],
        progress: Progress | None = None,
    ) -> Predictions:
        """x_t ~ q(x_t | x_0) with the same noise at every t, and x^_0 of each."""
        total, device = model.diffusion.num_timesteps, model.device
        shown = np.unique(np.linspace(1, total, self.columns).round().astype(int)).tolist()
        x_start, denoiser = model.format.to_unit(image), model.denoiser()
        counter = Counter(progress, total, "denoising")
        size = at_a_time(model, self.batch_size)
        errors, kept = [], []
        for times in torch.arange(1, total + 1).split(size):
            x_t = torch.cat([diffuse(model, image, int(t), seed=self.seed) for t in times])
            with torch.inference_mode():
                p = model.diffusion.p_mean_variance(
                    denoiser, x_t.to(device), (times - 1).to(device)
                )
            predicted = p.pred_xstart.cpu()
            errors.append((predicted.double() - x_start.double()).square().flatten(1).mean(1))
            kept += [
                (model.format.from_unit(x_t[i]), model.format.from_unit(predicted[i]))
                for i, t in enumerate(times.tolist())
                if t in shown
            ]
            counter.advance(len(times))
        noisy, clean = (torch.stack(part) for part in zip(*kept, strict=True))
        return Predictions(shown, noisy, clean, unit_to_byte_rmse(torch.cat(errors).numpy()))

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """x_t above x^_0, with the image itself on the left, and the error below."""
        self.check(model)
        image = self.first_images(model, images)
        found = self.predictions(model, image, progress)
        strip = labelled_grid(
            torch.cat([image, found.noisy, image, found.predicted]),
            model.format,
            len(found.shown) + 1,
            left=("x_t", "predicted x_0"),
            top=("image", *(f"t = {t:,}" for t in found.shown)),
        )
        return Drawn(
            stacked([strip, error_plot(model, found.rmse, strip.width)]),
            "above: one image after t steps of diffusion, and the x_0 that the network predicts "
            f"from it in one call; below: its error at all {len(found.rmse):,} t",
        )


@styled
def error_plot(model: Ddpm, rmse: NDArray[np.float64], width: int) -> Image.Image:
    """RMSE of the predicted x_0 against t, beside what the model was measured to make on others.

    Args:
        model: its denoising error is drawn where it was measured.
        rmse: [T], on the scale of 0..255.
        width: of the picture in pixels.
    """
    figure = Plot(figsize=(max(width, 480) / DPI, 2.8), layout="constrained")
    axes, times = figure.add_subplot(), np.arange(1, len(rmse) + 1)
    axes.plot(times, rmse, label="this image")
    error = model.denoising_error
    if error is not None:
        mean = np.array([error.at(t).mean() for t in np.split(times - 1, len(times))])
        words = f"{error.images:,} training images"
        axes.plot(times, unit_to_byte_rmse(mean), "k--", linewidth=1, label=words)
        axes.legend()
    axes.set(xlabel="t", ylabel="RMSE of x_0 (0..255)", xlim=(1, max(len(rmse), 2)))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    return to_picture(figure)
