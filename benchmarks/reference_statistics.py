"""Make the statistics of CIFAR-10 that ship with the classifier of `--features cifar10`.

    python benchmarks/reference_statistics.py PATH/TO/CIFAR-10 [--out FOLDER]

Mean and covariance of the features of a whole split, what the classifier makes of it, and the
features of some of its images, which the kernel distance, precision and recall need. To be run anew
whenever the classifier is trained anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import tyro

from ddpm.data.open import Split, open_data
from ddpm.evaluation import SourceSet, disk, get_features, measure, write_statistics
from ddpm.evaluation.quality import chosen
from ddpm.evaluation.statistics_file import SHIPPED

KEPT = 1500  # images of a split whose features are kept, so that both files stay under 2 MB


@dataclass(frozen=True)
class Options:
    """What to measure."""

    data: tyro.conf.Positional[Path]
    """CIFAR-10 in any form that `ddpm train cifar10` reads."""
    out: Path | None = None
    """Folder for the files; in the package by default."""


def main(options: Options) -> None:
    """Write both files, in place of those that are there."""
    features = get_features("cifar10", (3, 32, 32))
    for split in get_args(Split):
        path = SHIPPED[split] if options.out is None else options.out / SHIPPED[split].name
        images = open_data(options.data, split, image_size=32, channels=3)
        with disk() as room:
            found = measure(SourceSet(images), features, room)
            found.name = f"CIFAR-10 ({split})"
            assert found.vectors is not None
            assert found.score is not None
            write_statistics(path, found, split=split, vectors=chosen(found.vectors, KEPT, seed=0))
        print(
            f"{path}: {found.count:,} images, {path.stat().st_size:,} bytes; classifier score "
            f"{found.score.value:.3f}, {found.score.known:.4f} known with over 0.9"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
