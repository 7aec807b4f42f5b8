"""Pictures of the codec: rate and distortion with real bytes, and prefixes of one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat, psnr
from ddpm.evaluation.codec_comparison import Comparison
from ddpm.figures.grid import image_grid, to_picture
from ddpm.figures.style import styled
from ddpm.likelihood.bound import Bound

Curve = Sequence[tuple[float, float]]
STRIP = 8  # images in the picture of prefixes


@styled
def real_rate_distortion_plot(
    measured: Curve, bound: Bound, classical: Mapping[str, Curve], lossless: float
) -> Image.Image:
    """PSNR against bits/dim: the file's prefixes, what the bound says, and classical files.

    Args:
        measured: (bits/dim, PSNR in dB) of the prefixes that are not exact.
        bound: of the same chain, whose curve is the price without any loss.
        classical: the same by name of the format.
        lossless: bits/dim of the whole file.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    curve = bound.rate_distortion()
    axes.plot(curve["rate"], curve["psnr"], "k--", linewidth=1, label="calculated (Figure 5)")
    axes.plot(*zip(*measured, strict=True), marker="o", label="prefixes of the file")
    for name, points in classical.items():
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=name)
    axes.axvline(lossless, color="C0", linestyle=":", label="the whole file: exact")
    axes.set(xlabel="bits/dim", ylabel="PSNR (dB)", xlim=(0, 1.6 * lossless))
    low = min(min(value for _, value in measured), float(np.min(curve["psnr"])))
    axes.set_ylim(low - 1, max(value for _, value in measured) + 6)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return to_picture(figure)


def prefix_strip(
    prefixes: Sequence[Sequence[UInt8[Tensor, "c _h _w"]]],
    originals: Sequence[UInt8[Tensor, "c _h _w"]],
    image_format: ImageFormat,
) -> Image.Image:
    """A row for each image: what growing prefixes decode to, and at the end the original."""
    columns = [*prefixes, originals]
    cells = [column[row] for row in range(len(originals)) for column in columns]
    return image_grid(torch.stack(cells), image_format, columns=len(columns))


def comparison_pictures(comparison: Comparison) -> dict[str, Image.Image]:
    """codec: rate and distortion; prefixes: a strip of growing prefixes."""
    partial = [prefix for prefix in comparison.figures.prefixes if prefix.mse > 0]
    plot = real_rate_distortion_plot(
        [(comparison.bpd(prefix.bytes), psnr(prefix.mse)) for prefix in partial],
        comparison.bound,
        {
            name: [(comparison.bpd(size), psnr(mse)) for size, mse in points]
            for name, points in comparison.lossy.items()
        },
        comparison.bpd(comparison.figures.archive),
    )
    shown = [prefix.images[:STRIP] for prefix in partial]
    strip = prefix_strip(shown, list(comparison.images[:STRIP]), comparison.format)
    return {"codec": plot, "prefixes": strip}
