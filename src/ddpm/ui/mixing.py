"""What the tab In between does: Figure 8's row of two images, by noise and by DDIM inversion."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from ddpm.errors import check, whole_number
from ddpm.latents import interpolate
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.ui.pictures import as_picture, row, shown, words
from ddpm.ui.work import Work

WEIGHTS = tuple(i / 10 for i in range(11))  # lambda, as in Figure 8
MOST_STEPS = 100
ROWS = {
    "ancestral": "by noise: both images are diffused to x_t, mixed, and led back (Figure 8)",
    "ddim": "by DDIM inversion: the x_t that leads back to each image, mixed on an arc",
}


@dataclass(frozen=True)
class Mixed:
    """Images between two.

    Args:
        sources: the two.
        rows: for each way the images at every lambda, [k, c, h, w].
        t: steps of diffusion at which they were mixed.
    """

    sources: tuple[Tensor, Tensor]
    rows: dict[str, UInt8[Tensor, "k c h w"]]
    t: int


def mix(
    model: Ddpm,
    first: UInt8[Tensor, "c h w"],
    second: UInt8[Tensor, "c h w"],
    t: int,
    steps: int,
    seed: int,
    work: Work,
) -> Mixed:
    """Both rows.

    Raises:
        DdpmError: a number out of range.
    """
    most = min(MOST_STEPS, model.diffusion.num_timesteps)
    check(1 <= whole_number("the number of steps", steps, 1) <= most, f"the page takes 1..{most}")
    plan, rows = Plan(steps), {}
    for sampler in ROWS:
        parts = model, first[None], second[None], WEIGHTS, t
        found = interpolate(*parts, seed=seed, sampler=sampler, plan=plan, progress=work)
        rows[sampler] = found[:, 0]
    return Mixed((first, second), rows, t)


def view(model: Ddpm, mixed: Mixed, weight: float) -> str:
    """Both rows with one lambda picked out."""
    picked = round(max(0.0, min(weight, 1.0)) * (len(WEIGHTS) - 1))
    name = f"λ = {WEIGHTS[picked]:g}"
    first, second = (as_picture(image, model.format) for image in mixed.sources)
    parts = [words(f"t = {mixed.t:,}, {name}")]
    large = [shown(first, "the first image", "first")]
    for way, found in mixed.rows.items():
        label = "DDIM" if way == "ddim" else "noise"
        picture = as_picture(found[picked], model.format)
        large.append(shown(picture, f"{name} by {label}", f"{label}, {name}"))
    large.append(shown(second, "the second image", "second"))
    parts.append(row(large))
    for way, found in mixed.rows.items():
        small = [shown(first, "the first image", "source")]
        for place, image in enumerate(found):
            end = place in (0, len(WEIGHTS) - 1)
            caption = "rec." if end else f"{WEIGHTS[place]:g}"
            kind = "picked" if place == picked else ""
            alt = f"λ = {WEIGHTS[place]:g}"
            small.append(shown(as_picture(image, model.format), alt, caption, kind))
        small.append(shown(second, "the second image", "source"))
        parts.append(words(ROWS[way]) + row(small, "small"))
    return "".join(parts)
