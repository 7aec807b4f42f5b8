"""Progressive generation (Figure 6): the predicted x_0 while the chain runs backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat, Indexed
from ddpm.data.inputs import ImageLike
from ddpm.errors import whole_number
from ddpm.figures.figure import Drawn, SampledFigure
from ddpm.figures.grid import image_grid
from ddpm.figures.layout import labelled_grid
from ddpm.model import Ddpm
from ddpm.runtime import parallel
from ddpm.runtime.progress import Progress
from ddpm.sampling import SampleState


class ProgressiveRecorder:
    """A sampler callback that keeps the predicted x_0 of the first few images at some moments.

    Args:
        keep: how many images to record, whatever batches they are drawn in.
        image_format: of the images.
        steps: of the chain.
        moments: how many, evenly spaced from the first step to the last.
    """

    def __init__(self, keep: int, image_format: ImageFormat, steps: int, moments: int = 12) -> None:
        self.image_format, self.steps = image_format, steps
        chosen = torch.linspace(0, steps - 1, min(moments, steps)).round().long().tolist()
        self.moments = {moment: column for column, moment in enumerate(chosen)}
        shape = (keep, len(self.moments), *image_format.shape)
        self.recorded = torch.zeros(shape, dtype=torch.uint8)

    def __call__(self, state: SampleState) -> None:
        """Record the state, if it is one of the moments and one of the first images."""
        column = self.moments.get(self.steps - 1 - state.index)
        wanted = len(self.recorded) - state.first
        if column is not None and wanted > 0:
            images = self.image_format.from_unit(state.pred_xstart[:wanted]).cpu()
            self.recorded[state.first : state.first + len(images), column] = images

    def frames(self) -> UInt8[Tensor, "n moments c h w"]:
        """What was recorded, by all processes; every one of them must ask."""
        frames = self.recorded.clone()
        parallel.all_reduce_sum(frames)
        return frames


def progressive_strip(
    frames: UInt8[Tensor, "n moments c h w"], image_format: ImageFormat
) -> Image.Image:
    """One row an image, time running from left (noise) to right (finished)."""
    return image_grid(frames.flatten(0, 1), image_format, columns=frames.shape[1])


@dataclass(frozen=True)
class Progressive(SampledFigure):
    """The predicted x_0 while samples are drawn (Figure 6): a row an image, time to the right."""

    shows: ClassVar[str] = "the predicted x^_0 while samples are drawn (Figure 6)"

    n: int = 6
    """Images, a row each."""
    columns: int = 12
    """Moments of the reverse process, evenly spaced over its steps."""

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        whole_number("columns", self.columns, 1)
        super().check(model)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """The last column is the finished sample where the last step adds no noise."""
        self.check(model)
        visited = self.visited(model)
        recorder = ProgressiveRecorder(self.n, model.format, len(visited), self.columns)
        model.sample(self.n, **self.how(model), callback=recorder, progress=progress)
        words = [f"t = {visited[moment]:,}" for moment in recorder.moments]
        frames = recorder.frames()
        return Drawn(
            labelled_grid(frames.flatten(0, 1), model.format, frames.shape[1], top=words),
            f"the x_0 that the model predicts at {len(words)} of {len(visited):,} steps on the way "
            "from noise (left) to the sample (right)",
        )
