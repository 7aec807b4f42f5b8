"""The tabs Draw, In between, Fill in and How likely; Compress has a module of its own."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from ddpm.ui import drawing, filling, likely, mixing
from ddpm.ui.bench import Bench
from ddpm.ui.drawing import Drawn, Wish
from ddpm.ui.mixing import Mixed
from ddpm.ui.parts import at_once, chooser, long_work, painter, stopper
from ddpm.ui.pictures import as_picture, data_uri, words
from ddpm.ui.pictures import shown as figure
from ddpm.ui.sessions import Session
from ddpm.ui.work import Work

SAMPLERS = ("ddim", "ancestral", "dpm-solver", "unipc", "heun", "langevin")
NO_CLASS = "none"


def draw_tab(bench: Bench, page: gr.Blocks) -> None:
    """Samples and the way to them; draws the first ones when the page is opened."""
    model = bench.model
    most, total = model.format.batch(drawing.MOST_IMAGES), model.diffusion.num_timesteps
    steps, first = min(drawing.MOST_STEPS, total), min(20, total)
    known = bool(model.class_names)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            seed = gr.Number(0, label="seed", precision=0, minimum=0)
            n = gr.Slider(1, max(2, most), min(4, most), step=1, label="number")
            count = gr.Slider(1, steps, first, step=1, label="steps")
            sampler = gr.Radio(list(SAMPLERS), value="ddim", label="sampler")
            label = gr.Radio(
                [NO_CLASS, *model.class_names], value=NO_CLASS, label="class", visible=known
            )
            guidance = gr.Slider(0, 6, 2, step=0.1, label="guidance, with a class", visible=known)
            with gr.Row():
                button = gr.Button("Draw", variant="primary", scale=0, min_width=140)
                stopper(bench)
        with gr.Column(scale=3, min_width=280):
            moment = gr.Slider(
                0,
                1,
                1,
                step=1,
                label="the reverse process: from noise to picture",
                buttons=[],
                elem_id="moment",
            )
            said, shown, command = gr.HTML(), gr.HTML(elem_id="drawn"), gr.HTML()

    def draw(session: Session, work: Work, *values: Any) -> tuple[Any, ...]:
        seed, n, count, sampler, label, guidance = values
        wish = Wish(
            int(seed or 0),
            int(n),
            int(count),
            str(sampler),
            None if label == NO_CLASS else str(label),
            float(guidance),
        )
        drawn = drawing.draw(model, wish, work)
        session.results["draw"] = drawn
        last = len(drawn.times)
        line = f"<code class='command'>{html.escape(wish.command(bench.name))}</code>"
        slider = gr.Slider(0, last, last, step=1)
        return slider, drawing.frame(model, drawn, last), line

    def look(session: Session, moment: float) -> tuple[str]:
        return (drawing.frame(model, session.result("draw", Drawn), int(moment)),)

    inputs = [seed, n, count, sampler, label, guidance]
    long_work(bench, [button.click, page.load], draw, inputs, said, [moment, shown, command])
    at_once(bench, moment.input, look, [moment], said, shown)


def between_tab(bench: Bench) -> None:
    """Figure 8's row of two images, and DDIM inversion's below it."""
    model = bench.model
    total = model.diffusion.num_timesteps
    with gr.Row():
        with gr.Column(min_width=280):
            first = chooser(bench, "first", "the first image", 0)
        with gr.Column(min_width=280):
            second = chooser(bench, "second", "the second image", 4)
    with gr.Row():
        t = gr.Slider(0, total, total // 2, step=1, label="t, steps of diffusion", min_width=180)
        most = min(mixing.MOST_STEPS, total)
        steps = gr.Slider(1, most, min(20, most), step=1, label="steps", min_width=180)
        seed = gr.Number(0, label="seed of the noise", precision=0, minimum=0, min_width=110)
    with gr.Row():
        button = gr.Button("Mix", variant="primary", scale=0, min_width=140)
        stopper(bench)
    said = gr.HTML()
    weight = gr.Slider(0, 1, 0.5, step=0.1, label="λ, how much of the second", elem_id="weight")
    shown = gr.HTML(elem_id="mixed")

    def mix(session: Session, work: Work, *values: Any) -> tuple[Any, ...]:
        first, second, t, steps, seed, weight = values
        images = [bench.image(choice) for choice in (first, second)]
        parts = int(t), int(steps), int(seed or 0), work
        found = mixing.mix(model, images[0][0], images[1][0], *parts)
        session.results["between"] = found
        said = words("; ".join(about for _, about in images))
        return (mixing.view(model, found, float(weight)) + said,)

    def look(session: Session, weight: float) -> tuple[str]:
        return (mixing.view(model, session.result("between", Mixed), float(weight)),)

    long_work(bench, [button.click], mix, [first, second, t, steps, seed, weight], said, [shown])
    at_once(bench, weight.input, look, [weight], said, shown)


def fill_tab(bench: Bench) -> None:
    """A part painted over and filled in."""
    model = bench.model
    most, total = model.format.batch(filling.MOST_FILLINGS), model.diffusion.num_timesteps
    with gr.Row():
        with gr.Column(min_width=280):
            image = chooser(bench, "filled", "the image")
            n = gr.Slider(1, max(2, most), min(3, most), step=1, label="fillings")
            count = min(filling.MOST_STEPS, total)
            steps = gr.Slider(1, count, min(50, count), step=1, label="steps")
            repeats = gr.Slider(
                1,
                filling.MOST_REPEATS,
                3,
                step=1,
                label="repeats: more fit better, and take longer",
            )
            seed = gr.Number(0, label="seed", precision=0, minimum=0)
        with gr.Column(min_width=280):
            mask = painter(bench, "painter")
            with gr.Row():
                button = gr.Button("Fill in", variant="primary", scale=0, min_width=140)
                stopper(bench)
    said, shown = gr.HTML(), gr.HTML(elem_id="fillings")

    def take(_: Session, choice: str) -> tuple[Any]:
        return (gr.HTML(picture=data_uri(as_picture(bench.image(choice)[0], model.format))),)

    def fill(session: Session, work: Work, *values: Any) -> tuple[Any, ...]:
        choice, painted, n, steps, repeats, seed = values
        found, about = bench.image(choice)
        white = filling.as_mask(str(painted or ""), model.format)
        parts = int(n), int(steps), int(repeats), int(seed or 0), work
        return (filling.view(model, filling.fill(model, found, white, *parts)) + words(about),)

    at_once(bench, image.chosen, take, [image], said, mask)
    long_work(bench, [button.click], fill, [image, mask, n, steps, repeats, seed], said, [shown])


def likely_tab(bench: Bench) -> None:
    """Bits/dim of an image, term by term."""
    image = chooser(bench, "judged", "the image")
    with gr.Row():
        button = gr.Button("Measure", variant="primary", scale=0, min_width=140)
        stopper(bench)
    said, shown = gr.HTML(), gr.HTML(elem_id="likelihood")

    def measure(session: Session, work: Work, choice: str) -> tuple[Any, ...]:
        found, about = bench.image(choice)
        held = bench.held_out(work)
        result = likely.measure(bench.model, found, held, work)
        picture = as_picture(found, bench.model.format)
        return (figure(picture, "the image that was measured", about) + likely.view(result),)

    long_work(bench, [button.click], measure, [image], said, [shown])
