"""The command line: `ddpm COMMAND ...`, one file a command.

A user's error is printed as one sentence and ends with exit code 2; a run stopped by a signal is
saved and ends with 128 + the signal's number. Started by torchrun or accelerate launch, the
commands in SHARED split their work over all processes. `--json` makes one document of what any
command has to say (outcome).
"""

from __future__ import annotations

import codecs
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

COMMANDS = {
    "train": "train a model from a preset",
    "watch": "follow a training run from another terminal",
    "plot": "draw the curves of a training run",
    "sample": "draw images from a trained model",
    "compress": "put images into one file, without loss",
    "decompress": "get them back, from the whole file or a part",
    "inpaint": "fill in a part of an image",
    "evaluate": "measure bits/dim, rate-distortion, the codec, and samples (FID and others)",
    "measure": "measure the denoising error that compression needs",
    "figure": "draw a figure of the paper from a trained model",
    "reproduce": "measure what a table of the paper has, beside the paper's numbers",
    "report": "every figure and measure of a trained model on one page",
    "import": "make a run of somebody else's model: of diffusers, or the authors' naming",
    "export": "write a model for diffusers, or its weights in the authors' naming",
    "ui": "open a page in the browser: draw, compress, mix, fill in, judge images",
    "models": "list the trained models that come with the package",
    "info": "say what a model or a picture is, or what a run of a preset will cost",
    "demo": "train, sample and show the embedded digits in a few minutes",
}

MODULES = {"import": "import_model", "export": "export_model"}  # of commands with other names

LIKE = {"±": "+-", "×": "x", "…": "...", "—": "-", "–": "-", "━": "-", "╸": "-", "╺": "-"}
LIKE |= dict.fromkeys("─│┌┐└┘├┤┬┴┼╭╮╰╯┃┏┓┗┛┡┩╇╈┳┻━", "-") | dict.fromkeys("▁▂▃▄▅▆▇█", "#")

SHARED = ("train", "sample", "evaluate", "measure")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # while something was imported, which takes seconds
        print("ddpm: interrupted", file=sys.stderr)
        return 130


def _main(argv: Sequence[str] | None) -> int:
    """Import what the command needs, and run it."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wait_briefly()
    speak_plainly()
    if not arguments or arguments[0] in ("-h", "--help"):
        from ddpm.cli.overview import overview

        print(overview(COMMANDS))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from ddpm import __version__

        print(__version__)
        return 0

    from ddpm.cli.outcome import one_document, sentence, wants_document
    from ddpm.errors import DdpmError
    from ddpm.runtime import parallel
    from ddpm.runtime.threads import limit_threads

    try:
        name, rest = with_imports(arguments)
        if name == "--completion":
            from ddpm.cli.completion import completion

            print(completion(rest, COMMANDS, MODULES))
            return 0
        command = load_command(name)
        asked, rest = wants_document(rest)
        with parallel.process_group(), one_document(asked, [name, *rest]) as ended:
            limit_threads()
            return ended(int(command.run(rest) or 0))
    except BrokenPipeError:  # of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (DdpmError, OSError) as error:
        parallel.print_once(f"ddpm: {sentence(error)}")
        return 2
    except KeyboardInterrupt:
        parallel.print_once("ddpm: interrupted")
        return 130


def wait_briefly() -> None:
    """Let threads that wait for others give way soon, unless somebody has decided.

    GNU's OpenMP, which reads this when PyTorch is imported, has them turn on the spot for seconds
    by default. On a machine with other work the ones that turn keep the cores from those that they
    wait for, and a step takes a hundred times as long (RESULTS.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def speak_plainly() -> None:
    """Our notices on stderr, and nothing of other libraries but errors; a terminal that lacks a
    character gets something like it."""
    logging.basicConfig(format="ddpm: %(message)s", level=logging.ERROR)
    logging.getLogger("ddpm").setLevel(logging.INFO)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    codecs.register_error("ddpm", _something_like_it)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ddpm")


def _something_like_it(error: UnicodeError) -> tuple[str, int]:
    """For characters that cannot be written: ASCII that means the same, or their code."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    written = "".join(
        LIKE.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters
    )
    return written, error.end


def with_imports(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments, after the modules of each leading `--import` were imported."""
    from ddpm.errors import DdpmError
    from ddpm.registry import import_module

    while arguments and arguments[0] == "--import":
        if len(arguments) < 2:
            raise DdpmError("--import needs the name of a module")
        import_module(arguments[1])
        arguments = arguments[2:]
    if not arguments:
        raise DdpmError(f"no command is given; choose from {', '.join(COMMANDS)}")
    return arguments[0], arguments[1:]


def load_command(name: str) -> ModuleType:
    """The module of a command."""
    from ddpm.errors import check
    from ddpm.runtime import parallel

    check(name in COMMANDS, f"unknown command '{name}'; choose from {', '.join(COMMANDS)}")
    check(
        name in SHARED or parallel.launched() == 1,
        f"`ddpm {name}` runs in one process; start it without torchrun or accelerate",
    )
    return importlib.import_module(f"ddpm.cli.{MODULES.get(name, name)}")
