"""Do the distances grow when pictures get worse? The classifier's features beside raw pixels.

    python benchmarks/feature_distances.py PATH/TO/CIFAR-10 [SAMPLES ...] [--images 256]

Training images of CIFAR-10, unchanged and blurred, noised and shuffled by patches at four strengths
each, and any sets of samples (folders or .npz), all of the same number of images, against the test
images. Prints a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from ddpm.data.images import MemoryImages
from ddpm.data.open import open_data
from ddpm.evaluation import (
    ImageSet,
    SourceSet,
    disk,
    frechet_from_statistics,
    get_features,
    measure,
    open_set,
)

BLUR = (0.5, 0.8, 1.2, 2.0)  # standard deviations, pixels
NOISE = (5, 10, 20, 40)  # standard deviations, grey levels
PATCH = (16, 8, 4, 2)  # sides of what is shuffled, pixels
Images = UInt8[Tensor, "n 3 32 32"]


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: tyro.conf.Positional[Path]
    """CIFAR-10 in any form that `ddpm train cifar10` reads."""
    samples: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Sets of samples; the first of each are taken."""
    images: int = 256
    """Of every set."""


def blurred(images: Images, sigma: float) -> Images:
    """A Gaussian filter, edges mirrored."""
    reach = 6
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = F.pad(images.float(), (reach,) * 4, mode="reflect")
    x = F.conv2d(F.conv2d(x, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return x.round().clamp(0, 255).to(torch.uint8)


def noised(images: Images, sigma: float) -> Images:
    """White noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + sigma * noise).round().clamp(0, 255).to(torch.uint8)


def shuffled(images: Images, side: int) -> Images:
    """Patches in another order, another one for each image."""
    generator = torch.Generator().manual_seed(0)
    patches = F.unfold(images.float(), side, stride=side)
    order = torch.stack([torch.randperm(patches.shape[2], generator=generator) for _ in images])
    patches = patches.gather(2, order[:, None, :].expand_as(patches))
    return F.fold(patches, 32, side, stride=side).to(torch.uint8)


def sets(options: Options) -> Iterator[tuple[str, ImageSet]]:
    """Name and images of every row."""
    source = open_data(options.data, "train")
    chosen = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    images = source[chosen[: options.images]]

    def of(changed: Images) -> ImageSet:
        return SourceSet(MemoryImages(changed))

    yield "training images", of(images)
    for kind, change, strengths in (
        ("blurred", blurred, BLUR),
        ("noised", noised, NOISE),
        ("shuffled by patches of", shuffled, PATCH),
    ):
        for strength in strengths:
            yield f"{kind} {strength:g}", of(change(images, strength))
    for path in options.samples:
        batch = next(open_set(path).batches(options.images))
        if len(batch) < options.images:
            raise SystemExit(f"{path} has {len(batch)} images and {options.images} are compared")
        yield path.stem, of(batch)


def main(options: Options) -> None:
    """One row a set."""
    features = [get_features(name, (3, 32, 32)) for name in ("cifar10", "pixels")]
    with disk() as room:
        held_out = SourceSet(open_data(options.data, "test"))
        reference = [measure(held_out, one, room) for one in features]
        print(f"{options.images} images each, against {len(held_out):,} test images")
        print(
            "| images | Frechet, cifar10 | Frechet, pixels | known with > 0.9 |\n"
            + "| --- " * 4
            + "|"
        )
        for name, images in sets(options):
            found = [measure(images, one, room) for one in features]
            distances = [
                frechet_from_statistics(ours.statistics, theirs.statistics)
                for ours, theirs in zip(found, reference, strict=True)
            ]
            known = found[0].score.known
            print(f"| {name} | {distances[0]:.2f} | {distances[1]:.2f} | {known:.3f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
