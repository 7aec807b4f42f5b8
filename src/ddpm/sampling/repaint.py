"""RePaint (Lugmayr et al. 2022, Algorithm 1): the reverse process with a part of x_0 known.

Levels are counted as in the paper, 0 (the image) to K (noise), so that x at level l has time index
l - 1. A step from level l to l - 1 draws the unknown part from the reverse process and the known
part from q(x_{l-1} | x_0): both lie at level l - 1, the one that is reached. The algorithm as it is
printed has abar_t in the known part and beta_{t-1} on the way back up, and would join neighbouring
levels; the authors' code joins equal ones.

The known part does not wait for the unknown one, so the two do not match after a single step.
Therefore the chain goes back up for a while, by the forward process, and down again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion
from ddpm.errors import whole_number
from ddpm.sampling.base import NoiseSource, predict


def levels(steps: int, repeats: int, jump: int) -> list[int]:
    """The levels that RePaint visits, from `steps` to 0.

    The way down is one level at a time. At level 1, 1 + jump, 1 + 2 jump, ... it goes back up by
    `jump` levels, at once, and down again, repeats - 1 times each, unless that would lead above
    `steps`. With jump = 1 these are the loops of Algorithm 1, and in general those of the authors'
    code. From level 0 nothing goes back up.

    Args:
        steps: K, of the chain, at least 1.
        repeats: how often each stretch is walked, at least 1; with 1 there is no way back up.
        jump: levels of a stretch, at least 1.

    Raises:
        DdpmError: one of them is out of range.
    """
    whole_number("repeats", repeats, 1)
    whole_number("jump", jump, 1)
    visited = [steps]
    left = {level: repeats - 1 for level in range(1, steps - jump + 1, jump)}
    while visited[-1] > 0:
        level = visited[-1]
        if left.get(level, 0) > 0:
            left[level] -= 1
            visited.append(level + jump)
        else:
            visited.append(level - 1)
    return visited


def calls(steps: int, repeats: int, jump: int) -> int:
    """How often the network is called: once for each step down; see `levels`."""
    return sum(b < a for a, b in itertools.pairwise(levels(steps, repeats, jump)))


def repaint(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    known: Tensor,
    fill: Tensor,
    noise: NoiseSource,
    *,
    repeats: int = 10,
    jump: int = 10,
) -> Tensor:
    """Fill in a part of images.

    Args:
        diffusion: the chain, with its variance; fewer steps come from `diffusion.respace(...)`.
        denoiser: the network.
        known: images in [-1, 1], [b, c, h, w]; what is to be filled in does not matter.
        fill: bool, broadcasts against `known`: True where the image is to be filled in.
        noise: noise(i) is standard normal, [b, c, h, w], and new for every i = 0, 1, 2, ...
        repeats, jump: see `levels`.

    Returns:
        [b, c, h, w], not clipped, and `known` where nothing was to be filled in.

    Raises:
        DdpmError: a number out of range.
    """
    visited = levels(diffusion.num_timesteps, repeats, jump)
    numbers = itertools.count()

    def fresh() -> Tensor:
        return noise(next(numbers))

    x = fresh()
    for level, reached in itertools.pairwise(visited):
        if reached > level:
            x = _up(diffusion, x, level, reached, fresh())
        else:
            unknown = _down(diffusion, denoiser, x, level, fresh)
            x = torch.where(fill, unknown, _known_at(diffusion, known, reached, fresh))
    return x


def _down(
    diffusion: GaussianDiffusion,
    denoiser: Denoiser,
    x: Tensor,
    level: int,
    fresh: Callable[[], Tensor],
) -> Tensor:
    """A step of Algorithm 2 of the DDPM paper, from `level` to the next lower one."""
    p, _ = predict(diffusion, denoiser, x, level - 1, None)
    if level == 1:
        return p.mean
    return diffusion.p_sample(p, fresh())


def _known_at(
    diffusion: GaussianDiffusion, known: Tensor, level: int, fresh: Callable[[], Tensor]
) -> Tensor:
    """q(x_level | x_0) of the known image (Eq. 4); at level 0 the image itself."""
    if level == 0:
        return known
    abar = float(diffusion.schedule.alphas_cumprod[level - 1])
    return math.sqrt(abar) * known + math.sqrt(1 - abar) * fresh()


def _up(diffusion: GaussianDiffusion, x: Tensor, level: int, reached: int, noise: Tensor) -> Tensor:
    """q(x_reached | x_level): several steps of the forward process (Eq. 2) at once."""
    abar = diffusion.schedule.alphas_cumprod
    ratio = float(abar[reached - 1] / abar[level - 1])
    return math.sqrt(ratio) * x + math.sqrt(1 - ratio) * noise
