"""Images worked on a few at a time, with every call of the network counted."""

from __future__ import annotations

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser
from ddpm.errors import whole_number
from ddpm.model import DRAWN, Ddpm
from ddpm.runtime.progress import Counter, Progress


def batches(model: Ddpm, count: int, batch_size: int | None) -> tuple[Tensor, ...]:
    """The places 0..count-1, long vectors of at most `batch_size`, or of as many as `Ddpm.sample`
    draws at a time by default.

    Raises:
        DdpmError: the batch size is out of range.
    """
    size = model.format.batch(DRAWN) if batch_size is None else batch_size
    whole_number("batch_size", size, 1)
    return torch.arange(count).split(size) if count else ()


def counted(model: Ddpm, progress: Progress | None, total: int, label: str) -> Denoiser:
    """The model's network, of which `total` calls are told to `progress`."""
    counter, forward = Counter(progress, total, label), model.denoiser(model.drawing_precision())

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        output = forward(x, t)
        counter.advance()
        return output

    return denoiser
