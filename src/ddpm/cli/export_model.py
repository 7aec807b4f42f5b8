"""`ddpm export RUN --format FORMAT --out PLACE`: write a model for other code bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddpm.cli.outcome import finish, tell
from ddpm.cli.parse import parse, positional, typed
from ddpm.errors import DdpmError
from ddpm.interop.export import export_diffusers, export_weights
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import model_name
from ddpm.runtime.paths import user_path


@dataclass(frozen=True)
class Export:
    """Write a model for other code bases; nothing is overwritten."""

    out: Path | None = None
    """A folder for diffusers, a file ending in .safetensors for the weights alone."""
    format: Literal["diffusers", "safetensors"] = "diffusers"
    """diffusers: a folder that DDPMPipeline loads, with a model card. safetensors: the averaged
    weights alone, in the naming of the authors' code."""


def run(argv: Sequence[str]) -> int:
    """Parse, write, say where."""
    name, rest = positional(argv, "a run or checkpoint", "export")
    args = parse(Export, rest, f"export {name or 'RUN'}", Export())
    if args.out is None:
        raise DdpmError("`ddpm export` needs --out, the folder or file to write")
    out = user_path(args.out)
    model = load(name, device="cpu")
    if args.format == "diffusers":
        export_diffusers(model, out, model_name(name))
        tell(parameters=model.num_parameters, format=args.format)
        finish(
            f"{model.num_parameters:,} averaged weights as a pipeline of diffusers, with a model "
            f"card: in {out}",
            f"load it with DDPMPipeline.from_pretrained({str(out)!r}), or `ddpm import {typed(out)}"
            " --out RUN`",
            *stays_behind(model),
            made=[out],
        )
    else:
        export_weights(model, out)
        tell(parameters=model.num_parameters, format=args.format)
        finish(
            f"{model.num_parameters:,} averaged weights in the authors' naming: in {out}",
            *stays_behind(model),
            made=[out],
        )
    return 0


def stays_behind(model: Ddpm) -> list[str]:
    """A line about what was measured and changes what is drawn, if it was."""
    error = model.denoising_error
    if error is None or error.calibration is None:
        return []
    return [
        "the calibration of the predicted x_0 stays behind: others draw as ours do with "
        "--no-calibrated; of what is imported again, `ddpm measure` finds it"
    ]
