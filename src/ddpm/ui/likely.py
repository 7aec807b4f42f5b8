"""What the tab How likely does: bits/dim of an image, term by term, beside held-out images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.open import open_data
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.pretrained import FOLDER
from ddpm.provenance import fingerprint
from ddpm.ui.charts import Curve, curves, histogram
from ddpm.ui.pictures import table, words
from ddpm.ui.work import Work

STEPS = 50  # of the chain whose bound it is
IMAGES = 64  # held-out images that are measured where they are at hand


@dataclass(frozen=True)
class HeldOut:
    """Bits/dim of images that a model was not trained on.

    Args:
        values: of each.
        name: of the images.
    """

    values: list[float]
    name: str


@dataclass(frozen=True)
class Likelihood:
    """Of one image.

    Args:
        bound: its terms.
        held_out: what it is compared with; None where no such images are at hand.
    """

    bound: Bound
    held_out: HeldOut | None


def plan_of(model: Ddpm) -> Plan:
    """The chain that images are measured with: the best known of STEPS steps."""
    return Plan(min(STEPS, model.diffusion.num_timesteps))


def measure(
    model: Ddpm, image: UInt8[Tensor, "c h w"], held_out: HeldOut | None, work: Work
) -> Likelihood:
    """Every term of one image's bound."""
    return Likelihood(model.bound(image[None], plan=plan_of(model), progress=work), held_out)


def kept_held_out(model: Ddpm, folder: Path = FOLDER) -> HeldOut | None:
    """What is kept beside the models that come with the package, if it is this very model's."""
    for file in sorted(folder.glob("*.held-out.json")):
        found = json.loads(file.read_bytes())
        if found["model"] == fingerprint(model):
            return HeldOut(found["bits_per_dim"], found["images"])
    return None


def held_out(model: Ddpm, work: Work) -> HeldOut | None:
    """Bits/dim of the model's held-out images: those that are kept, or those of the set that it was
    trained on, where that is on this machine."""
    kept = kept_held_out(model)
    if kept is not None:
        return kept
    data = model.config.data
    try:
        images = open_data(
            data.path,
            "test",
            image_size=data.image_size,
            channels=data.channels,
            hold_out=data.hold_out,
        )
    except DdpmError:  # it lies elsewhere, or has none
        return None
    count = min(model.format.batch(IMAGES), len(images))
    batch = images[torch.arange(count)]
    bound = model.bound(batch, plan=plan_of(model), progress=work)
    return HeldOut([float(value) for value in bound.total], images.name)


def view(likelihood: Likelihood) -> str:
    """Numbers, the terms as a curve, and the place among held-out images."""
    bound = likelihood.bound
    total, prior = float(bound.total[0]), float(bound.prior[0])
    last, between = float(bound.terms[0]), float(bound.terms[1:].sum())
    rows = [
        ["L_T, the prior", f"{prior:.5f}"],
        [f"L_1 ... L_T-1, {len(bound.terms) - 1} steps", f"{between:.3f}"],
        ["L_0, the exact pixels", f"{last:.3f}"],
        ["all of it", f"{total:.3f}"],
    ]
    parts = [
        words(f"{total:.3f} bits/dim: the fewer, the likelier the model holds the image to be."),
        table(["term (Eq. 5)", "bits/dim"], rows),
        _histogram(likelihood.held_out, total),
    ]
    times = bound.timesteps + 1
    terms = Curve("terms", times.tolist(), bound.terms.tolist())
    about = "bits/dim of each term of the bound against t, most of them at small t"
    parts.append(
        curves([terms], "t (Eq. 5), logarithmic", "bits/dim of L_t-1", None, about, log=True)
    )
    return "".join(parts)


def _histogram(held: HeldOut | None, total: float) -> str:
    """Held-out images and where this one lies."""
    if held is None:
        return words(
            "This model keeps no figures of held-out images, and its data are not on this machine, "
            "so that there is nothing to compare with."
        )
    values = np.asarray(held.values)
    below = float((values < total).mean())
    said = (
        f"{len(values):,} images of {held.name}: mean {values.mean():.3f} bits/dim; {below:.0%} of "
        "them are likelier than this image (the line)."
    )
    about = f"histogram of bits/dim of {held.name}; the line stands at {total:.3f}"
    return words(said) + histogram(held.values, "bits/dim", "images", total, about)
