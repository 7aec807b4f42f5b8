"""The command line: `ddpm COMMAND ...`, one file a command.

A user's mistake is printed as one sentence and ends with exit code 2; a run stopped by a signal is
saved and ends with 128 + the signal's number. Started by torchrun or accelerate launch, the
commands in SHARED split their work over all processes.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a model from a preset",
    "watch": "follow a training run from another terminal",
    "plot": "draw the curves of a training run",
    "sample": "draw images from a trained model",
    "compress": "put images into one file, to the last bit",
    "decompress": "get them back, from the whole file or a part",
    "evaluate": "measure bits/dim, rate-distortion and the codec",
    "reproduce": "train and measure the variants of the paper's Table 2",
    "models": "list the trained models that come with the package",
    "info": "say what a trained model is",
    "demo": "train, sample and show the embedded digits in a few minutes",
}

SHARED = ("train", "sample", "evaluate")

USAGE = "usage: ddpm COMMAND ...\n\n" + "\n".join(
    f"  {name:<12}{text}" for name, text in COMMANDS.items()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="ddpm: %(message)s", level=logging.WARNING)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + "\n\n`ddpm COMMAND --help` shows the options of one.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from ddpm import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"ddpm: unknown command '{name}'; choose from {known}", file=sys.stderr)
        return 2

    from ddpm.errors import DdpmError, check
    from ddpm.runtime import parallel

    try:
        check(
            name in SHARED or parallel.launched() == 1,
            f"`ddpm {name}` runs in one process; start it without torchrun or accelerate",
        )
        command = importlib.import_module(f"ddpm.cli.{name}")
        with parallel.together():
            return int(command.run(rest) or 0)
    except (DdpmError, OSError) as error:
        # An OSError is a disk that filled up, a name too long: nothing to trace.
        parallel.tell(f"ddpm: {error}")
        return 2
    except KeyboardInterrupt:
        parallel.tell("ddpm: interrupted")
        return 130
