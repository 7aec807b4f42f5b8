"""What the tab Fill in does: a painted mask, and what the model puts there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.errors import check, whole_number
from ddpm.latents import inpaint
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.ui.pictures import as_picture, row, shown, words
from ddpm.ui.work import Work

MOST_FILLINGS = 8
MOST_STEPS = 250
MOST_REPEATS = 10


@dataclass(frozen=True)
class Filled:
    """Fillings of an image.

    Args:
        image: that was painted over.
        mask: True where it was.
        fillings: [n, c, h, w].
    """

    image: Tensor
    mask: Bool[Tensor, "h w"]
    fillings: UInt8[Tensor, "n c h w"]


def as_mask(painted: str, image_format: ImageFormat) -> Bool[Tensor, "h w"]:
    """A mask from a 0 or 1 for every pixel, row by row.

    Raises:
        DdpmError: it is of another size, or nothing is painted over.
    """
    height, width = image_format.height, image_format.width
    fits = len(painted) == height * width and set(painted) <= {"0", "1"}
    check(fits and "1" in painted, "nothing is painted over yet; paint the part to be filled in")
    return torch.tensor([mark == "1" for mark in painted]).reshape(height, width)


def fill(
    model: Ddpm,
    image: UInt8[Tensor, "c h w"],
    mask: Bool[Tensor, "h w"],
    n: int,
    steps: int,
    repeats: int,
    seed: int,
    work: Work,
) -> Filled:
    """Fill in some ways; see `ddpm.latents.inpaint`.

    Raises:
        DdpmError: a number out of range.
    """
    for name, value, most in (
        ("the number", n, model.format.batch(MOST_FILLINGS)),
        ("the number of steps", steps, min(MOST_STEPS, model.diffusion.num_timesteps)),
        ("the number of repeats", repeats, MOST_REPEATS),
    ):
        check(whole_number(name, value, 1) <= most, f"{name} must be 1..{most}, got {value}")
    images = image[None].expand(n, *image.shape)
    plan = Plan(steps)
    found = inpaint(model, images, mask, seed=seed, plan=plan, repeats=repeats, progress=work)
    return Filled(image, mask, found)


def view(model: Ddpm, filled: Filled) -> str:
    """The image, what was left of it, and the fillings."""
    grey = model.format.levels // 2
    holed = torch.where(filled.mask, torch.full_like(filled.image, grey), filled.image)
    figures = [
        shown(as_picture(filled.image, model.format), "the image", "image"),
        shown(as_picture(holed, model.format), "the image without the part", "kept"),
    ]
    for i, image in enumerate(filled.fillings):
        picture = as_picture(image, model.format)
        figures.append(shown(picture, f"filling {i + 1}", f"filling {i + 1}"))
    count, total = int(filled.mask.sum()), filled.mask.numel()
    said = f"{count:,} of {total:,} pixels filled in; the others are as they were, bit for bit"
    return words(said) + row(figures)
