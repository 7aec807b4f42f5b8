"""The page of one model."""

from __future__ import annotations

import html
from collections.abc import Mapping

import gradio as gr

from ddpm.ui.bench import Bench
from ddpm.ui.compress_tab import compress_tab
from ddpm.ui.sessions import MOST_SESSIONS
from ddpm.ui.tabs import between_tab, draw_tab, fill_tab, likely_tab

TITLE = "ddpm: from noise to pictures, and from pictures to bytes"


def build(bench: Bench, addresses: Mapping[str, str]) -> gr.Blocks:
    """All tabs.

    Args:
        bench: whose model's page it is.
        addresses: of the pages of all models by their names.
    """
    with gr.Blocks(title=f"ddpm: {bench.name}", analytics_enabled=False) as page:
        gr.HTML(heading(bench, addresses))
        with gr.Tabs():
            with gr.Tab("Draw"):
                draw_tab(bench, page)
            with gr.Tab("Compress"):
                compress_tab(bench)
            with gr.Tab("In between"):
                between_tab(bench)
            with gr.Tab("Fill in"):
                fill_tab(bench)
            with gr.Tab("How likely"):
                likely_tab(bench)

        def leave(request: gr.Request) -> None:
            bench.sessions.drop(str(request.session_hash))

        page.unload(leave)
    page.queue(max_size=64, api_open=False)
    page.state_session_capacity = (
        4 * MOST_SESSIONS
    )  # of what Gradio keeps of a page, which is small
    return page


def heading(bench: Bench, addresses: Mapping[str, str]) -> str:
    """What the page and its model are, and the way to the other models."""
    model = bench.model
    links = [
        f"<strong>{html.escape(name)}</strong>"
        if name == bench.name
        else f'<a href="{address}">{html.escape(name)}</a>'
        for name, address in addresses.items()
    ]
    channels, height, width = model.format.shape
    colours = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    about = (
        f"{width}x{height} pixels, {colours}; {model.num_parameters:,} parameters, trained on "
        f"{model.history.data}. What it draws is synthetic."
    )
    nav = f'<nav aria-label="models">{"".join(links)}</nav>' if len(links) > 1 else ""
    return (
        f'<div class="head"><h1>{TITLE}</h1>{nav}'
        f"<p>{html.escape(bench.name)}: {html.escape(about)}</p></div>"
    )
