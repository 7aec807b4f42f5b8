"""Table 4 and s. 4.3 of one's own model: rate and distortion of progressive coding."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm.evaluation import paper
from ddpm.likelihood.bound import Bound


@dataclass(frozen=True)
class CodePoint:
    """What a receiver has paid and sees at one moment, and where the paper looks at its own.

    Args:
        reverse_step: T - t + 1 of this model, at which x_t is the last that was received.
        t: steps of diffusion of the latent that was received last: of a chain of few steps, the
            smallest visited that is not below T - reverse_step + 1.
        rate: bits/dim so far.
        rmse: of the x_0 predicted then, on the scale of 0..255.
        paper: the row of Table 4 at the same share of the reverse process.
    """

    reverse_step: int
    t: int
    rate: float
    rmse: float
    paper: paper.CodeRow


def code_points(bound: Bound, timesteps: int) -> list[CodePoint]:
    """The rows of Table 4, most received first.

    Args:
        bound: of the model; its rate at x_t is the sum of all terms above t (s. 4.3).
        timesteps: T, of the whole chain. Where it is not the paper's 1,000 the moments are at the
            same shares of it; of a T below 10 every step is a row.
    """
    curve = bound.rate_distortion()
    received = bound.timesteps[::-1] + 1  # t of the latent that is known at entry j of the curve
    points: dict[int, CodePoint] = {}
    for row in paper.TABLE4:
        reverse_step = max(round(row.reverse_step * timesteps / paper.TIMESTEPS), 1)
        # Of what has been received by then, the latest; x_T is known from the beginning.
        entry = int((received >= timesteps - reverse_step + 1).sum()) - 1
        points.setdefault(
            reverse_step,
            CodePoint(
                reverse_step,
                int(received[entry]),
                float(curve["rate"][entry]),
                float(curve["rmse"][entry]),
                row,
            ),
        )
    return list(points.values())


def rate_and_distortion(bound: Bound) -> tuple[float, float]:
    """The two parts of the codelength (s. 4.3), bits/dim: L_1 + ... + L_T, and L_0."""
    distortion = float(bound.terms[0])
    return bound.mean - distortion, distortion
