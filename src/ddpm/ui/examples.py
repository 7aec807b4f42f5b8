"""Images to begin with that no model was trained on and that come with what is installed anyway."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.ui.uploads import fit

PHOTOS = ("china.jpg", "flower.jpg")  # of scikit-learn, whose import would take a second
# Squares of them: name, which photo, left, top, side.
SQUARES = (
    ("temple", 0, 10, 90, 240),
    ("pavilion", 0, 250, 40, 210),
    ("tree", 0, 430, 60, 200),
    ("eaves", 0, 200, 230, 190),
    ("flower", 1, 150, 40, 330),
    ("petals", 1, 260, 90, 150),
)
DIGITS = 6  # held-out digits, for models of such


@dataclass(frozen=True)
class Example:
    """An image to begin with.

    Args:
        name: what it shows.
        image: grey levels of a model's format.
    """

    name: str
    image: UInt8[Tensor, "c h w"]


@cache
def examples(image_format: ImageFormat) -> tuple[Example, ...]:
    """Images of a model's format; none where no image file has its channels."""
    if image_format == ImageFormat(1, 8, 8, 17):
        from ddpm.data.digits import digits  # loads scikit-learn

        held_out = digits("test")
        labels = held_out.labels
        assert labels is not None
        return tuple(Example(f"digit {int(labels[i])}", held_out.images[i]) for i in range(DIGITS))
    if image_format.channels not in (1, 3):
        return ()
    photos = _photos()
    if len(photos) < len(PHOTOS):
        return ()
    found = []
    for name, photo, left, top, side in SQUARES:
        square = photos[photo].crop((left, top, left + side, top + side))
        found.append(Example(name, fit(square, 8, image_format)[0]))
    return tuple(found)


def _photos() -> list[Image.Image]:
    """The photos that scikit-learn brings along; none where it brings none."""
    spec = importlib.util.find_spec("sklearn")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = [Path(place) / "datasets" / "images" / name for place in places for name in PHOTOS]
    return [Image.open(file).convert("RGB") for file in files if file.is_file()]
