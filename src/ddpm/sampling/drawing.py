"""Images batch by batch: what every sampler is walked with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.runtime import parallel
from ddpm.runtime.progress import Counter, Progress
from ddpm.sampling import network_calls
from ddpm.sampling.base import Callback, NoiseSource, Sampler


def draw_batches(
    chain: GaussianDiffusion,
    forward: Denoiser,
    sampler: Sampler,
    noise_of: Callable[[Tensor], NoiseSource],
    numbers: Sequence[int],
    batch_size: int,
    needed: Callable[[int], bool] | None = None,
    callback: Callback | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Walk a chain for this process's share of some images.

    Args:
        chain: of the model.
        forward: the network.
        sampler: draws a batch.
        noise_of: gives the noise of images by their numbers, a long vector.
        numbers: which images.
        batch_size: images at a time.
        needed: asked of each number just before it is drawn. Every batch is then filled up to
            `batch_size` with images that are not given back: kernels round otherwise at other
            sizes, and a set that is gone on with must come out the same.
        callback: sees every step of every batch.
        progress: counts network calls.

    Yields:
        The numbers of a batch, a long vector, and its images in [-1, 1], [b, c, h, w].
    """
    mine = torch.tensor([numbers[i] for i in parallel.local_range(len(numbers))])
    batches = mine.split(batch_size) if len(mine) else ()
    calls = network_calls(sampler, chain.num_timesteps)
    counter = Counter(progress, len(batches) * calls, "sampling")

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        output = forward(x, t)
        counter.advance()
        return output

    for index in batches:
        if needed is not None:
            index = index[[needed(int(i)) for i in index]]
        if not len(index):
            counter.advance(calls)
            continue
        count = len(index)
        if needed is not None:
            index = torch.cat([index, index[-1:].expand(batch_size - count)])
        noise = noise_of(index)
        start = noise(chain.num_timesteps)
        shown = None if callback is None else _numbered(callback, int(index[0]) - numbers[0])
        with torch.inference_mode():
            x = sampler(chain, denoiser, start, noise, callback=shown)
        yield index[:count], x[:count]


def _numbered(callback: Callback, first: int) -> Callback:
    """A callback that is told the number of the batch's first image."""
    return lambda state: callback(replace(state, first=first))
