"""The server of the page: Gradio's routes, uploads and downloads of our own, and nothing from or to
other hosts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ddpm.errors import DdpmError, check
from ddpm.model import Ddpm
from ddpm.ui.bench import Bench
from ddpm.ui.compressing import Packed
from ddpm.ui.page import build
from ddpm.ui.sessions import MOST_BYTES, Inbox, Sessions, too_large
from ddpm.ui.work import Desk

LOCAL = ("127.0.0.1", "localhost", "::1")
FONTS = ["system-ui", "sans-serif"]
POLICY = (  # the browser itself asks no other host for anything
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'self'"
)
DARKER = {  # than Gradio has them, for the contrast that readers need (WCAG, 4.5)
    "button_primary_background_fill": "#1d4ed8",
    "button_primary_background_fill_hover": "#1e40af",
    "color_accent": "#1d4ed8",
    "slider_color": "#1d4ed8",
    "block_info_text_color": "*body_text_color",
    "block_label_text_color": "*body_text_color",
    "block_title_text_color": "*body_text_color",
    "body_text_color_subdued": "*body_text_color",
}
CLOSED = ("/gradio_api/upload", "/gradio_api/proxy=", "/gradio_api/file=http")  # of gradio


def benches(models: Mapping[str, tuple[Ddpm, Path | None]]) -> list[Bench]:
    """One for each model and its file; they share the work and what is kept."""
    shared = Desk(), Sessions(), Inbox()
    return [Bench(name, model, path, *shared) for name, (model, path) in models.items()]


def app_of(found: Sequence[Bench], host: str = LOCAL[0]) -> FastAPI:
    """Everything that the server answers.

    Args:
        found: at least one; the first one's page is the front page.
        host: where it will listen. On this machine only, other names for it are refused, so that
            no page of another host can ask through a name of its own.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_files(app, found[0].sessions, found[0].inbox)
    places = ["", *(f"/model/{i}" for i in range(1, len(found)))]
    addresses = {bench.name: f"{place}/" for bench, place in zip(found, places, strict=True)}
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    theme = gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(**DARKER)
    for bench, place in reversed(list(zip(found, places, strict=True))):
        gr.mount_gradio_app(
            app,
            build(bench, addresses),
            place or "/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            theme=theme,
            css=css,
        )
    app.add_middleware(Guard)
    if host in LOCAL:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return app


class Guard:
    """Closes routes of Gradio that nothing here needs, and tells the browser whom it may ask."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Of ASGI."""
        if scope["type"] == "http" and any(part in scope["path"] for part in CLOSED):
            await PlainTextResponse("there is nothing here", 404)(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, guarded)


def _add_files(app: FastAPI, sessions: Sessions, inbox: Inbox) -> None:
    """Uploads and downloads that touch no disk."""

    @app.post("/upload")
    async def upload(request: Request) -> Response:
        said = request.headers.get("x-size", "")
        size = int(said) if said.isdecimal() else 0
        parts, total = [], 0
        if size <= MOST_BYTES:
            async for part in request.stream():
                total += len(part)
                if total > MOST_BYTES:
                    break
                parts.append(part)
        try:
            check(max(size, total) <= MOST_BYTES, too_large(max(size, total)))
            return PlainTextResponse(inbox.put(b"".join(parts)))
        except DdpmError as error:
            return PlainTextResponse(str(error), 413)

    @app.get("/download/{token}/{size}")
    async def download(token: str, size: int) -> Response:
        session = sessions.by_token(token)
        packed = session.results.get("compress") if session is not None else None
        if not isinstance(packed, Packed):
            return PlainTextResponse("this file was put away; make it again", 404)
        return Response(packed.data[: max(size, 0)], media_type="application/octet-stream")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        DdpmError: the address is not of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise DdpmError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from error
    return found


class Server(uvicorn.Server):
    """One that says when it answers, and when a signal stops it as it should.

    Args:
        config: of uvicorn.
        ready: called once then.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Of uvicorn; it has its handlers of signals by then."""
        await super().startup(sockets)
        if self.started:
            self.ready()


def serve(
    models: Mapping[str, tuple[Ddpm, Path | None]],
    host: str,
    port: int,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the pages until somebody stops it; within `ddpm.ui.quiet.quiet`.

    Args:
        models: with their files, if they have some, by name; the first one's page is the front
            page.
        host, port: where to listen; port 0 takes any that is free.
        ready: is told the address, once the pages are there.

    Raises:
        DdpmError: it cannot listen there.
    """
    with contextlib.closing(listening(host, port)) as found:
        shared = benches(models)
        app = app_of(shared, host)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{found.getsockname()[1]}/"
        try:
            Server(config, lambda: ready(address)).run(sockets=[found])
        finally:
            shared[0].sessions.close()
            shared[0].desk.close()
