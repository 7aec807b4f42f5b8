"""`ddpm reproduce NAME`: a table of the paper, measured again and beside the paper's numbers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ddpm.cli.parse import positional
from ddpm.errors import check

TABLES = {
    "table1": "RUN: bits/dim, FID and Inception score beside the paper's on CIFAR-10",
    "table2": "train every prediction, loss and variance on the embedded digits",
    "table3": "[RUN ...]: FID of LSUN models",
    "table4": "RUN: rate and distortion of progressive coding (s. 4.3)",
    "figure5": "RUN: the same as a picture, against time and each other",
}

USAGE = "usage: ddpm reproduce NAME ...\n\n" + "\n".join(
    f"  {name:<10}{text}" for name, text in TABLES.items()
)


def run(argv: Sequence[str]) -> int:
    """Hand over to the one that is asked for."""
    name, rest = positional(argv, f"what to reproduce ({', '.join(TABLES)})", "reproduce")
    if not name:
        print(f"{USAGE}\n\n`ddpm reproduce NAME --help` shows the options of one.")
        return 0
    check(name in TABLES, f"cannot reproduce '{name}'; choose from {', '.join(TABLES)}")
    return int(importlib.import_module(f"ddpm.cli.reproduce_{name}").run(rest))
