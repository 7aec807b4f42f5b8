"""One self-contained HTML page of pictures and figures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ddpm.runtime.atomic import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d1d1f; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
img { max-width: 100%; image-rendering: pixelated; border: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #ddd; padding: .35rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left }
p.note { color: #555 }
"""


@dataclass
class HtmlPage:
    """Sections in the order they were added; `write` makes the page.

    Args:
        title: of the page.
        chunks: text that every picture carries (see `ddpm.provenance`).
    """

    title: str
    chunks: Mapping[str, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)

    def section(self, heading: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(heading)}</h2>")

    def text(self, words: str) -> None:
        """A paragraph."""
        self.parts.append(f"<p>{html.escape(words)}</p>")

    def picture(self, image: Image.Image, caption: str) -> None:
        """A picture, embedded as PNG, with what it shows."""
        buffer, text = io.BytesIO(), PngInfo()
        for keyword, value in self.chunks.items():
            text.add_itxt(keyword, value)
        image.save(buffer, format="PNG", pnginfo=text)
        data = base64.b64encode(buffer.getvalue()).decode()
        caption = html.escape(caption)
        self.parts.append(
            f'<img alt="{caption}" src="data:image/png;base64,{data}"><p class="note">{caption}</p>'
        )

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        """A table; the first column is left-aligned."""
        lines = [("th", head), *(("td", row) for row in rows)]
        body = "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
            for tag, cells in lines
        )
        self.parts.append(f"<table>{body}</table>")

    def write(self, path: Path) -> None:
        """Write the page, atomically."""
        title = html.escape(self.title)
        page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style><h1>{title}</h1>{''.join(self.parts)}</html>"
        )
        write_text(path, page)
