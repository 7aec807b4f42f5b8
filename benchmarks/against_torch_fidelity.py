"""FID, KID, Inception score of two folders by torch-fidelity and by us, side by side.

    pip install torch-fidelity
    python benchmarks/against_torch_fidelity.py SAMPLES REFERENCE --inception FILE.pt

Folders of at least 1,000 images each. For machines where torchvision, which torch-fidelity needs,
imports beside PyTorch; where it does not (as beside the CPU build that this project is tested with)
this says so and ends. For that reason it was never run by us: our figures are checked against
scipy, brute force and closed forms in tests/evaluation/test_distances.py.

torch-fidelity has a port of the same network of its own, and draws other subsets for KID and other
parts for the Inception score. Precision and recall are not compared: it takes VGG's features there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from ddpm.evaluation import compare, disk, get_features, measure, open_set


@dataclass(frozen=True)
class Options:
    """What to compare."""

    samples: tyro.conf.Positional[Path]
    """A folder of PNGs."""
    reference: tyro.conf.Positional[Path]
    """Another, of images of the same size."""
    inception: Path | None = None
    """The file inception-2015-12-05.pt; DDPM_INCEPTION or torch's cache by default."""
    batch: int = 64
    """Images in one network call."""


def ours(options: Options) -> dict[str, float]:
    """Our figures, by torch-fidelity's names."""
    samples, reference = open_set(options.samples), open_set(options.reference)
    features = get_features("inception", samples.shape, inception=options.inception)
    with disk() as room:
        sets = [measure(x, features, room, batch_size=options.batch) for x in (samples, reference)]
        figures = {figure.name.rsplit("_", 1)[0]: figure.value for figure in compare(*sets)}
    return {
        "frechet_inception_distance": figures["fid"],
        "kernel_inception_distance_mean": figures["kid"],
        "inception_score_mean": figures["inception_score"],
    }


def main(options: Options) -> None:
    """Print a table."""
    try:
        import torch_fidelity
    except Exception as error:  # torchvision beside another PyTorch raises many kinds
        sys.exit(f"torch-fidelity does not import here ({type(error).__name__}: {error})")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(options.samples),
        input2=str(options.reference),
        cuda=torch.cuda.is_available(),
        fid=True,
        kid=True,
        isc=True,
        batch_size=options.batch,
        samples_find_deep=True,
        verbose=False,
    )
    print("| figure | torch-fidelity | ours | ratio - 1 |\n| --- | ---: | ---: | ---: |")
    for name, value in ours(options).items():
        print(f"| {name} | {theirs[name]:.6g} | {value:.6g} | {value / theirs[name] - 1:.2e} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
