"""What several tabs are made of: a chooser of images, a painter, and long work that is followed."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ddpm.errors import DdpmError
from ddpm.ui.bench import Bench
from ddpm.ui.examples import examples
from ddpm.ui.pictures import as_picture, data_uri, progress, sentence, status
from ddpm.ui.sessions import MOST_BYTES, Session
from ddpm.ui.work import MOST, Cancelled

HERE = Path(__file__).parent
Job = Callable[..., tuple[Any, ...]]


def script(name: str) -> str:
    """The text of a script beside this module."""
    return (HERE / name).read_text(encoding="utf-8")


def chooser(bench: Bench, name: str, legend: str, picked: int = 0, kind: str = "image") -> gr.HTML:
    """Examples to pick from, and a file of one's own, which arrives byte for byte.

    Args:
        bench: whose model's examples they are.
        name: of the group of buttons, one on the page.
        legend: what is chosen.
        picked: the example that is chosen at first.
        kind: image, or archive for a file of the codec, of which there are no examples.
    """
    choices, known = [], examples(bench.model.format) if kind == "image" else ()
    for number, example in enumerate(known):
        uri = data_uri(as_picture(example.image, bench.model.format))
        checked = " checked" if number == picked else ""
        choices.append(
            f'<label class="choice"><input type="radio" name="{name}" value="{number}"{checked}>'
            f'<img src="{uri}" alt="">{html.escape(example.name)}</label>'
        )
    own = "your own image" if known else "a .ddpm file"
    accept = "image/*" if kind == "image" else ".ddpm"
    body = (
        f'<fieldset class="chooser" data-most="{MOST_BYTES}"><legend>{legend}</legend>'
        f'<div class="choices">{"".join(choices)}</div>'
        f'<label class="own">{own}<input type="file" accept="{accept}"></label>'
        '<p class="said" role="alert"></p></fieldset>'
    )
    return gr.HTML(
        value=f"example:{picked}" if known else "",
        html_template=body,
        js_on_load=script("chooser.js"),
        elem_id=name,
    )


def painter(bench: Bench, name: str) -> gr.HTML:
    """A picture that can be painted over with a pointer or with keys; its value is a 0 or a 1 for
    every pixel, its `picture` what is below."""
    shape = bench.model.format
    brush = max(1, shape.width // 6)
    body = (
        f'<div class="painter"><canvas tabindex="0" role="application" data-width="{shape.width}" '
        f'data-height="{shape.height}" aria-label="Paint over a part: arrow keys move the brush, '
        'space paints, delete erases"></canvas><div class="tools">'
        f'<label>brush <input type="range" min="1" max="{max(2, shape.width // 2)}" '
        f'value="{brush}"></label>'
        '<button type="button" class="middle">the middle</button>'
        '<button type="button" class="clear">nothing</button></div>'
        '<p class="said" role="status"></p></div>'
    )
    first = examples(shape)
    uri = data_uri(as_picture(first[0].image, shape)) if first else ""
    return gr.HTML(
        value="", html_template=body, js_on_load=script("painter.js"), elem_id=name, picture=uri
    )


def session_of(bench: Bench, request: gr.Request) -> Session:
    """What is kept of the page that asks."""
    return bench.sessions.get(str(request.session_hash))


def followed(bench: Bench, job: Job, outputs: int) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """A job as Gradio calls it: tells how far it is, and ends in results or one sentence.

    Args:
        bench: where it is done.
        job: (session, work, values of the inputs ...) to the values of the outputs.
        outputs: how many these are; the first output of all is what is said.
    """

    def run(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        session, begun = session_of(bench, request), time.monotonic()
        work, nothing, said = session.begin(), (gr.skip(),) * outputs, ""
        try:
            steps = bench.desk.follow(work, lambda work: job(session, work, *values))
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    took = time.monotonic() - begun
                    yield (status(f"done in {took:.1f} s"), *end.value)
                    return
                now = progress(work.done, work.total, work.label)
                if now != said:
                    yield (now, *nothing)
                said = now
        except Cancelled:
            yield (status("stopped"), *nothing)
        except DdpmError as error:
            yield (sentence(error), *nothing)
        finally:
            work.cancel()

    return run


def long_work(
    bench: Bench,
    events: Sequence[Callable[..., Any]],
    job: Job,
    inputs: Sequence[Any],
    said: gr.HTML,
    outputs: Sequence[Any],
) -> None:
    """Have events start a job; see `followed`."""
    run = followed(bench, job, len(outputs))
    for event in events:
        event(
            run,
            list(inputs),
            [said, *outputs],
            concurrency_limit=MOST,
            show_progress="hidden",
            api_visibility="private",
        )


def at_once(
    bench: Bench,
    event: Callable[..., Any],
    job: Job,
    inputs: Sequence[Any],
    said: gr.HTML,
    *outputs: Any,
) -> None:
    """Have an event show something that takes no time, or little.

    Args:
        bench: whose sessions.
        event: of a slider or a chooser.
        job: (session, values of the inputs ...) to the values of the outputs.
        inputs, said, outputs: what it reads, where a sentence goes, and what it changes.
    """

    def run(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        try:
            return gr.skip(), *job(session_of(bench, request), *values)
        except DdpmError as error:
            return sentence(error), *(gr.skip() for _ in outputs)

    event(
        run,
        list(inputs),
        [said, *outputs],
        queue=False,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def stopper(bench: Bench) -> gr.Button:
    """A button that ends what its page is making."""

    def stop(request: gr.Request) -> None:
        session_of(bench, request).cancel()

    button = gr.Button("Stop", variant="stop", scale=0, min_width=110)
    button.click(stop, None, None, queue=False, api_visibility="private")
    return button
