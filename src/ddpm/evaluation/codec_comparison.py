"""The codec beside the bound it aims at and the classical formats: rows and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat, psnr
from ddpm.evaluation.codec import FRACTIONS, SINGLE, CodecFigures, measure_codec
from ddpm.evaluation.image_formats import available_formats, lossless_bytes, lossy_curve
from ddpm.evaluation.simple_codes import xz_bpd
from ddpm.likelihood.bound import Bound
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter, Progress

BOUND = 50  # steps of the bound


@dataclass(frozen=True)
class Comparison:
    """What was measured on a set of images.

    Args:
        images: the images.
        format: of them.
        figures: of the codec.
        bound: of the model (Eq. 5), with BOUND optimal steps and the analytic variance.
        lossless: bytes of one file of all the images, by format.
        lossy: (bytes, mean squared error on 0..255) of one file of all, by format and quality.
    """

    images: UInt8[Tensor, "n c h w"]
    format: ImageFormat
    figures: CodecFigures
    bound: Bound
    lossless: dict[str, int]
    lossy: dict[str, list[tuple[int, float]]]

    def bpd(self, size: float) -> float:
        """Bits/dim of that many bytes."""
        return 8 * size / self.figures.values

    def size_rows(self) -> list[list[str]]:
        """The archive and its parts, the bound, and every lossless format."""
        figures, rows = self.figures, []
        rows.append(["this codec, one archive", f"{self.bpd(figures.archive):.3f}"])
        rows += [[f"- {name}", f"{value:.4f}"] for name, value in figures.split().items()]
        rows.append([f"bound, {len(self.bound.terms)} optimal steps", f"{self.bound.mean:.3f}"])
        rows += [[f"{name}, one file", f"{self.bpd(n):.3f}"] for name, n in self.lossless.items()]
        mean = sum(figures.single) / len(figures.single)
        one = 8 * mean / self.images[0].numel()
        rows.append([f"this codec, a file an image ({mean:.1f} bytes)", f"{one:.3f}"])
        return rows

    def prefix_rows(self) -> list[list[str]]:
        """PSNR of each prefix, and of each format in at most as many bytes."""
        rows = []
        for prefix in self.figures.prefixes:
            cells = []
            for points in self.lossy.values():
                fitting = [mse for size, mse in points if size <= prefix.bytes]
                cells.append(f"{psnr(min(fitting)):.2f}" if fitting else "")
            own = "exact" if prefix.mse == 0 else f"{psnr(prefix.mse):.2f}"
            size = [f"{prefix.bytes:,}", f"{self.bpd(prefix.bytes):.3f}"]
            rows.append([*size, str(prefix.steps), own, *cells])
        return rows

    def prefix_head(self) -> list[str]:
        """Names of the columns of `prefix_rows`."""
        return ["bytes", "bits/dim", "steps", "PSNR of this codec", *self.lossy]

    def speed(self) -> str:
        """Images a second, and how much of it is the network."""
        figures, n = self.figures, len(self.images)
        return (
            f"encoding: {n / figures.encode:.1f} images/s "
            f"({figures.encode_network / figures.encode:.0%} in the network); decoding: "
            f"{n / figures.decode:.1f} images/s ({figures.network / figures.decode:.0%} in the "
            "network)"
        )

    def overheads(self) -> str:
        """What channel simulation and the whole cost above what theory asks."""
        spent, figures = self.figures.spent, self.figures
        delivered = sum(spent.delivered)
        path = (
            f"{sum(spent.path) / delivered - 1:+.1%}" if delivered else "of a path without a step"
        )
        total = self.bpd(figures.archive - figures.header) / self.bound.mean - 1
        return (
            f"channel simulation {path} over the information delivered; all but the header "
            f"{total:+.1%} beside the bound, whose last term is a Gaussian for each pixel"
        )

    def document(self) -> dict[str, Any]:
        """Everything as JSON."""
        figures, spent = self.figures, self.figures.spent
        return {
            "images": len(self.images),
            "values": figures.values,
            "steps": figures.steps,
            "threads": torch.get_num_threads(),
            "archive_bytes": figures.archive,
            "header_bytes": figures.header,
            "single_bytes": figures.single,
            "bits_per_dim": self.bpd(figures.archive),
            "split": figures.split(),
            "bound": self.bound.mean,
            "kl_bits": spent.kl,
            "path_bits": spent.path,
            "delivered_bits": spent.delivered,
            "seconds": {
                "encode": figures.encode,
                "encode_network": figures.encode_network,
                "decode": figures.decode,
                "decode_network": figures.network,
            },
            "prefixes": [
                {"bytes": p.bytes, "steps": p.steps, "mse": p.mse} for p in figures.prefixes
            ],
            "lossless_bytes": self.lossless,
            "lossy_bytes_mse": self.lossy,
        }


def compare_codec(
    model: Ddpm,
    images: UInt8[Tensor, "n c h w"],
    *,
    steps: int | None = None,
    fractions: Sequence[float] = FRACTIONS,
    single: int = SINGLE,
    progress: Progress | None = None,
) -> Comparison:
    """Measure the codec, its bound and the classical formats on the same images.

    Args:
        model: whose denoising error has been measured.
        images: of the model's format.
        steps: K; chosen by the amount of data by default.
        fractions: of the file that are decoded.
        single: how many images are also compressed one by one.
        progress: of each part.

    Raises:
        DdpmError: the archive does not give the images back.
    """
    figures = measure_codec(
        model, images, steps=steps, fractions=fractions, single=single, progress=progress
    )
    plan = Plan(min(BOUND, model.diffusion.num_timesteps), "optimal", "analytic")
    bound = model.bound(images, plan=plan, progress=progress)
    lossless, lossy = {}, {}
    formats = available_formats()
    counter = Counter(progress, len(formats), "other formats")
    for name, kind in formats.items():
        if kind.lossless is not None:
            lossless[name] = lossless_bytes(images, model.format, name)
        if kind.lossy is not None:
            lossy[name] = lossy_curve(images, model.format, name)
        counter.advance()
    lossless["xz of the pixels"] = round(xz_bpd(images) * images.numel() / 8)
    return Comparison(images, model.format, figures, bound, lossless, lossy)
