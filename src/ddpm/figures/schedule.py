"""The noise schedule: what is left of the image, and what each term of the loss weighs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure as Plot
from numpy.typing import NDArray

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.figures.figure import Drawn, Figure
from ddpm.figures.grid import to_picture
from ddpm.figures.style import styled
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Progress

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """A schedule against t, which counts steps of diffusion.

    Args:
        t: [K], the steps of the chain.
        abar: [K], what is left of the image's variance in x_t.
        snr: [K], abar / (1 - abar).
        small: [K], the weight of |eps - eps_theta|^2 in the bound, in nats, with sigma^2 = beta~
            (Eq. 12); L_simple weighs every term by 1 (Eq. 14).
        large: [K], the same with sigma^2 = beta.
    """

    t: NDArray[np.int64]
    abar: Array
    snr: Array
    small: Array
    large: Array


def curves(schedule: NoiseSchedule) -> Curves:
    """What the figure draws of a schedule."""
    beta, abar = schedule.betas, schedule.alphas_cumprod
    variance = schedule.fixed_large_variance
    # Eq. 12. At a last step that erases the image both are infinite.
    with np.errstate(divide="ignore"):
        large = beta**2 / (2 * variance * schedule.alphas * (1 - abar))
    return Curves(schedule.timesteps + 1, abar, schedule.snr, schedule.bound_weights, large)


@dataclass(frozen=True)
class Schedule(Figure):
    """abar, the signal-to-noise ratio, and the weight of each term of the loss against t."""

    shows: ClassVar[str] = "abar, SNR, and the weight of each term of the loss (Eq. 4, 12, 14)"
    network: ClassVar[bool] = False

    plan: Plan = field(default_factory=Plan)

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        model.chain(self.plan)

    @styled
    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """Three plots."""
        self.check(model)
        schedule = model.chain(self.plan).schedule
        found = curves(schedule)
        marker = "." if len(found.t) <= 50 else ""
        figure = Plot(figsize=(10, 3.2), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        first.plot(found.t, found.abar, marker=marker)
        first.set(ylabel=r"$\bar\alpha_t$: share of the image in $x_t$", ylim=(-0.02, 1.02))
        second.plot(found.t, found.snr, marker=marker)
        second.set(ylabel=r"SNR, $\bar\alpha_t / (1 - \bar\alpha_t)$", yscale="log")
        third.plot(
            found.t, found.small, marker=marker, label=r"the bound, $\sigma^2 = \tilde\beta$"
        )
        third.plot(
            found.t, found.large, "--", marker=marker, label=r"the bound, $\sigma^2 = \beta$"
        )
        third.plot(found.t, np.ones(len(found.t)), label=r"$L_{\rm simple}$")
        third.set(ylabel=r"weight of $|\epsilon - \epsilon_\theta|^2$", yscale="log")
        third.legend(fontsize="small")
        for axes in (first, second, third):
            axes.set_xlabel("t")
            axes.grid(alpha=0.3)
        return Drawn(
            to_picture(figure),
            f"the schedule of {len(found.t):,} steps: how much of the image is left at t, its "
            "ratio to the noise, and how much each t counts in the bound (from "
            f"{found.small[0]:.3g} at t = {found.t[0]:,} to {found.small[-1]:.3g} at "
            f"t = {found.t[-1]:,}) and in L_simple (1 everywhere)",
        )
