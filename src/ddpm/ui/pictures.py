"""Pictures and words as HTML that carries everything in itself: no preview is a file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat


def as_picture(image: UInt8[Tensor, "c _h _w"], image_format: ImageFormat) -> Image.Image:
    """Grey levels as a picture, pixel by pixel."""
    return Image.fromarray(np.ascontiguousarray(image_format.to_display(image[None])[0]))


def data_uri(picture: Image.Image) -> str:
    """A picture as an address that holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown(picture: Image.Image, alt: str, caption: str = "", kind: str = "") -> str:
    """A picture with words below it.

    Args:
        picture: what it shows; the page enlarges it pixel by pixel.
        alt: for those who do not see it.
        caption: for all, plain text.
        kind: a class of the page's style.
    """
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="pic {kind}"><img src="{data_uri(picture)}" alt="{html.escape(alt)}" '
        f'width="{picture.width}" height="{picture.height}">{below}</figure>'
    )


def row(figures: Iterable[str], kind: str = "") -> str:
    """Pictures beside one another, as far as there is room."""
    return f'<div class="pics {kind}">{"".join(figures)}</div>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of plain text, its first column naming the rows."""
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="figures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def words(text: str) -> str:
    """A line of plain text."""
    return f'<p class="say">{html.escape(text)}</p>'


def sentence(error: Exception) -> str:
    """What is wrong, where everybody sees it."""
    return f'<p class="wrong" role="alert">{html.escape(" ".join(str(error).split()))}</p>'


def status(text: str) -> str:
    """What was done."""
    return f'<p class="done" role="status">{html.escape(text)}</p>'


def progress(done: int, total: int, label: str) -> str:
    """How far it is."""
    name = html.escape(label.split(":")[0])
    bar = f'<progress aria-label="{name}" max="{max(total, 1)}" value="{min(done, max(total, 1))}">'
    share = f" {done:,} of {total:,}" if total else ""
    return f'<div class="working"><span>{name}{share}</span>{bar}</progress></div>'
