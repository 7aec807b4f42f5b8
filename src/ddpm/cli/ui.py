"""`ddpm ui [RUN|MODEL ...]`: a page in the browser."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.cli.parse import parse, say
from ddpm.errors import DdpmError, check
from ddpm.loading import load_with_file
from ddpm.pretrained import pretrained
from ddpm.provenance import model_name
from ddpm.ui.quiet import quiet

MISSING = (
    "the page in the browser needs Gradio, which is not installed; install it with "
    "`pip install 'ddpm-exact[ui]'`, or in a checkout open it with `make ui`"
)


@dataclass(frozen=True)
class Ui:
    """Open a page in the browser: draw, compress, mix, fill in and judge images with a model.

    RUN or MODEL, any number of them, are runs, checkpoints or names of models that come with the
    package, which are opened where none is named. The page works without a network.
    """

    port: int = 7860
    """Where the page is; 0 takes any port that is free."""
    host: str = "127.0.0.1"
    """Who may open it: this machine only by default, 0.0.0.0 for every machine that reaches it."""


def run(argv: Sequence[str]) -> int:
    """Parse, load, serve until it is stopped."""
    names: list[str] = []
    rest = list(argv)
    while rest and not rest[0].startswith("-"):
        names.append(rest.pop(0))
    args = parse(Ui, rest, "ui")
    check(0 <= args.port <= 65535, f"--port must lie in 0..65535, got {args.port}")
    if any(importlib.util.find_spec(name) is None for name in ("gradio", "uvicorn")):
        raise DdpmError(MISSING)
    models = {
        model_name(name): load_with_file(name, precision="fp32") for name in names or pretrained()
    }
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # to clean up
    try:
        with quiet():
            from ddpm.ui.server import serve  # loads gradio

            serve(models, args.host, args.port, lambda url: say(f"open {url} (Ctrl-C stops it)"))
    except KeyboardInterrupt:  # which is how it is stopped
        say("stopped")
    return 0
