"""Samples beside real images: every measure of one kind of features, each under its full name."""

from __future__ import annotations

import logging
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ddpm.errors import check
from ddpm.evaluation.features import measure_name
from ddpm.evaluation.frechet import Gaussian, check_frechet, distance_of_gaussians
from ddpm.evaluation.kernel import SIZE, kernel_distance
from ddpm.evaluation.manifolds import NEIGHBOURS, precision_recall
from ddpm.evaluation.measured import Measured
from ddpm.evaluation.statistics import DENSE
from ddpm.runtime.progress import Counter, Progress

log = logging.getLogger("ddpm")
MOST = 10_000  # images of a side whose pairs are all looked at
ENOUGH = 10_000  # images from which on a Frechet distance is little biased


@dataclass(frozen=True)
class Figure:
    """One measure.

    Args:
        name: with the features and the number of samples that were used.
        value: of the samples.
        real: of the reference, where it has one of its own.
        std: among the parts that the value is the mean of.
        details: what else decides it.
    """

    name: str
    value: float
    real: float | None = None
    std: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        known = {"value": self.value, "reference": self.real, "std": self.std}
        return {key: value for key, value in known.items() if value is not None} | self.details


def check_counts(features: str, size: int, samples: int, reference: Sized | None) -> None:
    """Refuse, before samples are drawn, what `compare` would.

    Args:
        features: their name.
        size: numbers of a vector.
        samples: how many there will be.
        reference: the images to compare them with; None where statistics are.

    Raises:
        DdpmError: too few images, or too many of too many features.
    """
    check(samples >= 2, f"a distance needs at least 2 samples, got {samples}")
    if size > DENSE:
        check(
            reference is not None,
            f"the {features} of such images are {size:,} numbers, too many for statistics",
        )
        assert reference is not None
        check_frechet(samples, len(reference), size)


def compare(
    samples: Measured, reference: Measured, *, seed: int = 0, progress: Progress | None = None
) -> list[Figure]:
    """All measures that both sets allow: those that need the reference's features themselves are
    left out where a statistics file has none.

    Args:
        samples: all of their vectors are at hand.
        reference: real images, or a file's statistics of some.
        seed: decides the subsets.
        progress: counts the measures.

    Raises:
        DdpmError: other features, or too few images.
    """
    check(
        samples.features == reference.features,
        f"features {samples.features} and {reference.features} cannot be compared",
    )
    assert samples.vectors is not None
    kind, count = samples.features, len(samples.vectors)
    counter = Counter(progress, 3, "comparing features")
    distance = distance_of_gaussians(_gaussian(samples), _gaussian(reference))
    figures = [Figure(measure_name("frechet", kind, count), distance)]
    counter.advance()
    if reference.vectors is not None:
        figures.append(_kernel(kind, samples.vectors, reference.vectors, seed))
        counter.advance()
        figures += _precision_recall(kind, samples.vectors, reference.vectors, seed)
        counter.advance()
    return figures + scores(samples, reference)


def scores(samples: Measured, reference: Measured | None = None) -> list[Figure]:
    """What the classifier made of the samples, if the features have one."""
    found, real = samples.score, None if reference is None else reference.score
    if found is None:
        return []
    details = {"splits": found.splits, "whole": found.whole}
    figures = [
        Figure(
            measure_name("score", samples.features, found.count),
            found.value,
            None if real is None else real.value,
            found.std,
            details if real is None else {**details, "reference_count": real.count},
        )
    ]
    if samples.features == "cifar10":
        name = measure_name("known", samples.features, found.count)
        figures.append(Figure(name, found.known, None if real is None else real.known))
    return figures


def _gaussian(found: Measured) -> Gaussian:
    """From the features themselves where they are fewer than their numbers, which is quicker, or
    where there are too many for a covariance; else from the covariance."""
    x, statistics = found.vectors, found.statistics
    if statistics is None or (x is not None and len(x) == found.count and len(x) <= x.shape[1]):
        assert x is not None
        return Gaussian.of_features(x)
    return Gaussian.of_statistics(statistics)


def _kernel(
    kind: str, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], seed: int
) -> Figure:
    """The kernel distance; a small set is compared with at most MOST members of the other."""
    if min(len(x), len(y)) <= SIZE:
        x, y = (chosen(z, MOST, seed) for z in (x, y))
    found = kernel_distance(x, y, seed=seed)
    details = {"subsets": found.subsets, "subset_size": found.size, "reference_count": len(y)}
    return Figure(measure_name("kernel", kind, len(x)), found.value, None, found.std, details)


def _precision_recall(
    kind: str, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], seed: int
) -> list[Figure]:
    """Of as many images on both sides, since either depends on both numbers."""
    count = min(len(x), len(y), MOST)
    if count <= NEIGHBOURS:
        log.warning(
            "precision and recall need at least %d images on each side, and are left out",
            NEIGHBOURS + 1,
        )
        return []
    found = precision_recall(chosen(y, count, seed), chosen(x, count, seed))
    details = {"neighbours": NEIGHBOURS, "reference_count": count}
    names = ("precision", "recall")
    return [
        Figure(measure_name(name, kind, count), value, details=details)
        for name, value in zip(names, found, strict=True)
    ]


def chosen(x: Float[np.ndarray, "n d"], count: int, seed: int) -> Float[np.ndarray, "m d"]:
    """At most `count` of the vectors, of which a seed decides which."""
    if len(x) <= count:
        return x
    return x[np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))]


def is_same_set(samples: Measured, reference: Measured) -> bool:
    """Whether two sets have the same moments, as a set has with itself in any order."""
    a, b = samples.statistics, reference.statistics
    if a is None or b is None or samples.count != (reference.count or samples.count):
        return False
    return bool(
        np.allclose(a.mu, b.mu, rtol=1e-7, atol=1e-9)
        and np.allclose(a.sigma, b.sigma, rtol=1e-6, atol=1e-9)
    )
