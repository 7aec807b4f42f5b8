"""How a compressed image is shown: pictures of equal bytes, and the curve with the place on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import ImageFormat
from ddpm.ui.charts import Curve, curves
from ddpm.ui.compressing import Beginning, Packed, best_rival
from ddpm.ui.pictures import as_picture, row, shown, words


def decibels(value: float) -> str:
    """A PSNR in words."""
    if math.isnan(value):
        return "original unknown"
    return "exact" if math.isinf(value) else f"{value:.2f} dB"


def view(packed: Packed, found: Beginning, image_format: ImageFormat) -> str:
    """What the first bytes of a file show, beside other formats of at most as many bytes."""
    size, whole = found.bytes, len(packed.data)
    said = (
        f"{size:,} of {whole:,} bytes, {packed.bits_per_dim(size):.3f} of "
        f"{packed.bits_per_dim(whole):.3f} bits/dim: {decibels(found.psnr)}"
    )
    figures = [_ours(packed, found, image_format)]
    for name, rivals in packed.rivals.items():
        best = best_rival(rivals, size)
        if best is None:
            least = min(rival.bytes for rival in rivals)
            figures.append(_nothing(name, least))
        else:
            caption = f"{name}: {best.bytes:,} bytes, {decibels(best.psnr)}"
            figures.append(shown(best.picture, f"{name} of {best.bytes:,} bytes", caption))
    if packed.originals is not None and len(packed.originals) == 1:
        original = as_picture(packed.originals[0], image_format)
        figures.append(shown(original, "the original", "original"))
    note = (
        f" {', '.join(packed.missing)} cannot be written here (pip install pillow-jxl-plugin)."
        if packed.missing
        else ""
    )
    note += f" {packed.needs[0].upper()}{packed.needs[1:]}." if packed.needs else ""
    return words(said + "." + note) + row(figures, "equal") + curve(packed, found)


def _ours(packed: Packed, found: Beginning, image_format: ImageFormat) -> str:
    """The picture of the file itself; a grid of several."""
    if len({image.shape for image in found.images}) == 1 and len(found.images) > 1:
        picture = as_picture(sheet(found.images), image_format)
    else:
        picture = as_picture(found.images[0], image_format)
    caption = f"ddpm: {found.bytes:,} bytes, {decibels(found.psnr)}"
    alt = f"{packed.name}, decoded from its first {found.bytes:,} bytes"
    return shown(picture, alt, caption, "ours")


def sheet(images: Sequence[UInt8[Tensor, "c h w"]]) -> UInt8[Tensor, "c _h _w"]:
    """Images of one size in rows, about as many as there are columns; empty places are black."""
    columns = math.ceil(math.sqrt(len(images)))
    empty = [torch.zeros_like(images[0])] * (-len(images) % columns)
    cells = torch.stack([*images, *empty])
    rows = [torch.cat(list(some), dim=2) for some in cells.split(columns)]
    return torch.cat(rows, dim=1)


def _nothing(name: str, least: int) -> str:
    """In the place of a picture: a format that has none so small."""
    return (
        f'<figure class="pic none"><div>needs {least:,} bytes</div>'
        f"<figcaption>{name}</figcaption></figure>"
    )


def curve(packed: Packed, found: Beginning) -> str:
    """PSNR against bytes, of the file and of the other formats."""
    if packed.originals is None:
        return words("The file is only a beginning, so that its error is not known.")
    lines = [
        Curve("ddpm", [b.bytes for b in packed.beginnings], [b.psnr for b in packed.beginnings])
    ]
    for name, rivals in packed.rivals.items():
        sizes = [rival.bytes for rival in rivals]
        best = [best_rival(rivals, size) for size in sizes]
        lines.append(Curve(name, sizes, [r.psnr if r else math.nan for r in best]))
    about = (
        f"PSNR against bytes of ddpm and of {', '.join(packed.rivals) or 'no other format'}; the "
        f"line stands at {found.bytes:,} bytes"
    )
    return curves(lines, "bytes of the file", "PSNR, dB", found.bytes, about)
