"""Bits/dim of a shipped model's held-out images, which `ddpm ui` shows an image beside.

    python benchmarks/held_out_bits.py cifar10-small PATH --name "CIFAR-10 (test)"

Writes NAME.held-out.json beside the model: one number an image, with the plan that the page uses,
and the fingerprint of the model, without which they mean nothing. To be run again whenever the
model's file is made anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
import tyro

from ddpm import load, open_data
from ddpm.pretrained import pretrained
from ddpm.provenance import fingerprint
from ddpm.ui.likely import plan_of


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: tyro.conf.Positional[str]
    path: tyro.conf.Positional[str]
    """Of the images; those that are held out are taken."""
    name: str = "held-out images"
    """What the page calls them."""
    images: int = 256
    """The first so many."""


def main(options: Options) -> None:
    """Measure and write."""
    file = pretrained()[options.model]
    model = load(file, precision="fp32")
    size, channels = model.format.height, model.format.channels
    source = open_data(options.path, "test", image_size=size, channels=channels)
    images = source[torch.arange(min(options.images, len(source)))]
    bound = model.bound(images, plan=plan_of(model), batch_size=64)
    found = {
        "model": fingerprint(model),
        "images": options.name,
        "bits_per_dim": [round(float(value), 4) for value in bound.total],
    }
    out = file.with_suffix(".held-out.json")
    out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"{len(images)} images, {bound.mean:.3f} +- {bound.standard_error:.3f} bits/dim: {out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
