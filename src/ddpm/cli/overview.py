"""What `ddpm --help` prints: every command in its group, with an example that can be typed."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = {
    "start here": ("demo", "models", "ui"),
    "train": ("train", "watch", "plot", "info"),
    "draw": ("sample", "inpaint", "figure"),
    "compress": ("compress", "decompress"),
    "measure": ("evaluate", "measure", "reproduce", "report"),
    "exchange": ("import", "export"),
}

EXAMPLES = {
    "demo": "ddpm demo",
    "models": "ddpm models",
    "ui": "ddpm ui",
    "train": "ddpm train images --data FOLDER",
    "watch": "ddpm watch runs/digits",
    "plot": "ddpm plot runs/digits",
    "info": "ddpm info cifar10-small",
    "sample": "ddpm sample cifar10-small --class ship --guidance 2",
    "inpaint": "ddpm inpaint cifar10-small IMAGE.png MASK.png -o OUT.png",
    "figure": "ddpm figure interpolation runs/digits",
    "compress": "ddpm compress cifar10-small FOLDER -o images.ddpm",
    "decompress": "ddpm decompress images.ddpm -o OUT --fraction 0.2",
    "evaluate": "ddpm evaluate runs/digits --bpd",
    "measure": "ddpm measure runs/digits",
    "reproduce": "ddpm reproduce table4 runs/digits",
    "report": "ddpm report runs/digits",
    "import": "ddpm import google/ddpm-cifar10-32 --out runs/google",
    "export": "ddpm export runs/digits --out digits",
}

LAST = """\
ddpm COMMAND --help        the options of one
ddpm COMMAND ... --json    what it has to say as one JSON document on stdout
ddpm --completion bash     completion for bash, zsh or fish: eval "$(ddpm --completion bash)"
ddpm --import MODULE ...   make known the networks, samplers and presets that MODULE registers
ddpm --version             the version"""


def overview(commands: Mapping[str, str]) -> str:
    """Commands with their one sentence and an example each, in groups.

    Args:
        commands: name -> what it does.
    """
    lines = ["usage: ddpm [--import MODULE] COMMAND ... [--json]"]
    for group, names in GROUPS.items():
        lines += ["", f"{group}:"]
        for name in names:
            if name in commands:
                lines += [f"  {name:<12}{commands[name]}", f"              $ {EXAMPLES[name]}"]
    return "\n".join([*lines, "", LAST])
