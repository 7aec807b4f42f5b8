"""The tab Compress: an image to a file, and its first bytes beside other formats."""

from __future__ import annotations

import html
import math
from typing import Any

import gradio as gr

from ddpm.ui import compressing
from ddpm.ui.bench import Bench
from ddpm.ui.compressed_view import view
from ddpm.ui.compressing import Beginning, Packed
from ddpm.ui.parts import at_once, chooser, long_work, stopper
from ddpm.ui.sessions import Session
from ddpm.ui.work import Work

SMALL = 4  # images of a model's size that are decoded while a slider is dragged


def compress_tab(bench: Bench) -> None:
    """See above."""
    model = bench.model
    values = math.prod(model.format.shape)
    with gr.Row():
        with gr.Column(min_width=280):
            image = chooser(bench, "packed", "the image to compress")
        with gr.Column(min_width=280):
            archive = chooser(bench, "archive", "or a file to look into", kind="archive")
    with gr.Row():
        button = gr.Button("Compress", variant="primary", scale=0, min_width=140)
        stopper(bench)
    said = gr.HTML()
    size = gr.Slider(0, 1, 1, step=1, label="bytes of the file", buttons=[], elem_id="bytes")
    shown, links = gr.HTML(elem_id="compressed"), gr.HTML(elem_id="links")

    def finished(session: Session, packed: Packed) -> tuple[Any, ...]:
        session.results["compress"] = packed
        found = packed.beginnings[len(packed.beginnings) // 3]
        slider = gr.Slider(packed.head, len(packed.data), found.bytes, step=1)
        return slider, *seen(session, packed, found)

    def seen(session: Session, packed: Packed, found: Beginning) -> tuple[str, str]:
        return view(packed, found, model.format), downloads(session, packed, found.bytes)

    def pack(session: Session, work: Work, choice: str) -> tuple[Any, ...]:
        picture, name = bench.exact_image(choice)
        return finished(session, compressing.pack(model, picture, name, work, bench.keep()))

    def unpack(session: Session, work: Work, choice: str) -> tuple[Any, ...]:
        data, name = bench.archive(choice)
        return finished(session, compressing.examine(model, data, name, work))

    def look(session: Session, size: float) -> tuple[str, str]:
        packed = session.result("compress", Packed)
        if bench.desk.is_free and packed.values <= SMALL * values:
            found = bench.desk.do(
                lambda work: compressing.beginning(model, packed, int(size), work)
            )
        else:
            found = compressing.nearest(packed, int(size))
        return seen(session, packed, found)

    def look_exactly(session: Session, work: Work, size: float) -> tuple[str, str]:
        packed = session.result("compress", Packed)
        found = compressing.beginning(model, packed, int(size), work)
        return seen(session, packed, found)

    outputs = [size, shown, links]
    long_work(bench, [button.click], pack, [image], said, outputs)
    long_work(bench, [archive.chosen], unpack, [archive], said, outputs)
    at_once(bench, size.input, look, [size], said, shown, links)
    long_work(bench, [size.release], look_exactly, [size], said, [shown, links])


def downloads(session: Session, packed: Packed, size: int) -> str:
    """Addresses of the file and of its beginning."""
    stem, found = packed.name.removesuffix(".ddpm"), []
    for length, what in ((len(packed.data), "the file"), (size, "its beginning")):
        name = packed.name if length == len(packed.data) else f"{stem}-{length}.ddpm"
        address = f"/download/{session.token}/{length}"
        found.append(
            f'<a class="fetch" href="{address}" download="{html.escape(name)}">'
            f"{what}, {length:,} bytes</a>"
        )
    return "".join(found)
