"""What the tab Draw does: samples, the way to them, and the bits that a receiver has by then."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.errors import check, whole_number
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.sampling import SampleState
from ddpm.ui.pictures import as_picture, row, shown, words
from ddpm.ui.work import Work

MOMENTS = 40  # of the reverse process that are kept
MOST_STEPS = 250
MOST_IMAGES = 16  # of 32x32 pixels; fewer large ones


@dataclass(frozen=True)
class Wish:
    """What is to be drawn; see `ddpm.Ddpm.sample` and `ddpm.Ddpm.given`."""

    seed: int = 0
    n: int = 4
    steps: int = 20
    sampler: str = "ddim"
    label: str | None = None
    guidance: float = 1.0

    def command(self, name: str) -> str:
        """What draws the same on the command line."""
        words = f"ddpm sample {name} -n {self.n} --seed {self.seed} --sampler {self.sampler}"
        words += f" --steps {self.steps} --precision fp32"
        if self.label is not None:
            words += f" --class {self.label} --guidance {self.guidance:g}"
        return words


@dataclass(frozen=True)
class Drawn:
    """Samples and how they came about.

    Args:
        wish: what was asked for.
        images: the samples.
        noisy, guesses: x_t and the predicted x_0 at some moments, [m, n, c, h, w].
        times: t of each moment, falling.
        steps: how many steps were taken before each moment.
        bits: that a receiver of the first image has at each moment, and in the end.
    """

    wish: Wish
    images: UInt8[Tensor, "n c h w"]
    noisy: UInt8[Tensor, "m n c h w"]
    guesses: UInt8[Tensor, "m n c h w"]
    times: list[int]
    steps: list[int]
    bits: list[float]


def draw(model: Ddpm, wish: Wish, work: Work) -> Drawn:
    """Draw, keep what is seen on the way, and count the bits of the first image.

    Raises:
        DdpmError: a number out of range, or an unknown sampler or class.
    """
    whole_number("the seed", wish.seed, 0)
    most = model.format.batch(MOST_IMAGES)
    check(1 <= whole_number("the number", wish.n, 1) <= most, f"the page draws 1..{most} images")
    check(
        1 <= whole_number("the number of steps", wish.steps, 1) <= MOST_STEPS,
        f"the page takes 1..{MOST_STEPS} steps; `ddpm sample` takes any number",
    )
    model = model if wish.label is None else model.given(wish.label, wish.guidance)
    draw, plan = model.plan_samples(
        wish.sampler, None, min(wish.steps, model.diffusion.num_timesteps)
    )
    times = (model.chain(plan).schedule.timesteps[::-1] + 1).tolist()
    kept = torch.linspace(0, len(times) - 1, min(MOMENTS, len(times))).round().long().tolist()
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def see(state: SampleState) -> None:
        step = len(times) - 1 - state.index
        if step in kept:
            images = [model.format.from_unit(x).cpu() for x in (state.x_t, state.pred_xstart)]
            seen[step] = images[0], images[1]

    images = model.sample(
        wish.n, seed=wish.seed, sampler=draw, plan=plan, callback=see, progress=work
    )
    received = _received(model, images[:1], times, work)
    moments = [step for step in kept if step in seen]
    return Drawn(
        wish,
        images,
        torch.stack([seen[step][0] for step in moments]),
        torch.stack([seen[step][1] for step in moments]),
        [times[step] for step in moments],
        moments,
        [*(received[step] for step in moments), received[-1]],
    )


def _received(
    model: Ddpm, image: UInt8[Tensor, "1 c h w"], times: list[int], work: Work
) -> list[float]:
    """Bits that a receiver of an image has before each step of a chain and after it (s. 4.3).

    Args:
        model: whose chain.
        image: that is sent.
        times: t that the chain visits, falling.
        work: its progress.
    """
    analytic = model.denoising_error is not None and not model.diffusion.learns_variance
    visited = tuple(t - 1 for t in reversed(times))
    plan = Plan(None, visited, "analytic" if analytic else None)
    curve = model.bound(image, plan=plan, progress=work).rate_distortion()
    return [float(rate) * image.numel() for rate in curve["rate"]]


def frame(model: Ddpm, drawn: Drawn, moment: int) -> str:
    """What is seen at a moment: x_t beside the predicted x_0, and the bits received by then.

    Args:
        model: that drew.
        drawn: what it drew.
        moment: 0 for noise only; past the last one the finished pictures are shown.
    """
    figures, last = [], len(drawn.times)
    moment = max(0, min(moment, last))
    total, format_ = drawn.bits[-1], model.format
    bits = drawn.bits[moment]
    share = f"{bits:,.0f} bits received so far, of {total:,.0f} for picture 1 without loss"
    if moment == last:
        for i, image in enumerate(drawn.images):
            caption = f"picture {i + 1}"
            figures.append(shown(as_picture(image, format_), f"sample {i + 1}, finished", caption))
        return words(f"finished: {share}") + row(figures)
    t = drawn.times[moment]
    for i in range(len(drawn.images)):
        pair = [
            shown(as_picture(drawn.noisy[moment, i], format_), f"x_t of picture {i + 1}", "xₜ"),
            shown(
                as_picture(drawn.guesses[moment, i], format_),
                f"predicted x_0 of picture {i + 1}",
                "x̂₀",
            ),
        ]
        figures.append(f'<div class="pair" role="group">{"".join(pair)}</div>')
    said = f"t = {t:,}, after {drawn.steps[moment]:,} of {drawn.wish.steps:,} steps: {share}"
    return words(said) + row(figures)
