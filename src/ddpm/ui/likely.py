"""What the tab How likely does: bits/dim of an image, term by term, beside held-out images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.open import open_data
from ddpm.errors import DdpmError
from ddpm.evaluation.held_out import judging_plan, measure_held_out
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.held_out import HeldOut
from ddpm.model import Ddpm
from ddpm.ui.charts import Curve, curves, histogram
from ddpm.ui.pictures import table, words
from ddpm.ui.work import Work


@dataclass(frozen=True)
class Likelihood:
    """Of one image.

    Args:
        bound: its terms.
        held_out: what it is compared with; None where no such images are at hand.
    """

    bound: Bound
    held_out: HeldOut | None


def measure(
    model: Ddpm, image: UInt8[Tensor, "c h w"], held_out: HeldOut | None, work: Work
) -> Likelihood:
    """Every term of one image's bound."""
    return Likelihood(model.bound(image[None], plan=judging_plan(model), progress=work), held_out)


def held_out(model: Ddpm, work: Work) -> HeldOut | None:
    """Bits/dim of the model's held-out images: those that its file keeps, or those of the set that
    it was trained on, where that is on this machine."""
    if model.held_out is not None:
        return model.held_out
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
    return measure_held_out(model, images, work)


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
            "This model keeps no figures of held-out images (`ddpm measure` stores them), and its "
            "data are not on this machine, so that there is nothing to compare with."
        )
    values = np.asarray(held.bits_per_dim)
    below = float((values < total).mean())
    said = (
        f"{len(values):,} images of {held.name}: mean {values.mean():.3f} bits/dim; {below:.0%} of "
        "them are likelier than this image (the line)."
    )
    about = f"histogram of bits/dim of {held.name}; the line stands at {total:.3f}"
    return words(said) + histogram(held.bits_per_dim, "bits/dim", "images", total, about)
