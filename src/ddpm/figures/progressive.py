"""Progressive generation (Figure 6): the predicted x_0 while the chain runs backwards."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import from_unit_range
from ddpm.figures.grid import image_grid
from ddpm.sampling import SampleState


class ProgressiveRecorder:
    """A sampler callback that keeps the predicted x_0 of the first few images at every step.

    Args:
        n: images drawn in all.
        grey_levels: values a pixel can take.
        keep: how many images to record; they must all be in the first batch.
    """

    def __init__(self, n: int, grey_levels: int, keep: int = 8) -> None:
        self.keep = min(n, keep)
        self.grey_levels = grey_levels
        self.recorded: list[Tensor] = []
        self.done = False

    def __call__(self, state: SampleState) -> None:
        if self.done:
            return
        images = from_unit_range(state.pred_xstart[: self.keep], self.grey_levels)
        self.recorded.append(images.cpu())
        self.done = state.index == 0

    def frames(self, columns: int = 12) -> UInt8[Tensor, "n frames c h w"]:
        """`columns` moments, evenly spaced from the first step to the last."""
        last = len(self.recorded) - 1
        moments = torch.linspace(0, last, min(columns, last + 1)).round().long()
        return torch.stack([self.recorded[int(m)] for m in moments], dim=1)


def progressive_strip(frames: UInt8[Tensor, "n frames c h w"], grey_levels: int) -> Image.Image:
    """One row an image, time running from left (noise) to right (finished)."""
    return image_grid(frames.flatten(0, 1), grey_levels, columns=frames.shape[1])
