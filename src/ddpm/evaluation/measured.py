"""A set of images seen through features: what all measures are made of.

One pass over the images. Moments and scores are sums; the vectors themselves, which the kernel
distance and precision and recall need, go to a file, so that no number of images needs memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from ddpm.errors import check
from ddpm.evaluation.features import Features
from ddpm.evaluation.image_sets import ImageSet
from ddpm.evaluation.score import ClassifierScore, ScoreSums
from ddpm.evaluation.statistics import DENSE, Moments, Statistics
from ddpm.runtime.atomic import check_free_space
from ddpm.runtime.progress import Counter, Progress

BATCH = 256


@dataclass
class Measured:
    """What is known of a set.

    Args:
        name: of the set.
        features: by which it was seen.
        statistics: mean and covariance; None where that of so many features is too large.
        count: of its images; None where a file does not say.
        vectors: the features of all images, or of `count` some; None where there are none.
        score: what the classifier made of them, if there is one.
        about: what a file says of itself.
    """

    name: str
    features: str
    statistics: Statistics | None
    count: int | None
    vectors: Float[np.ndarray, "m d"] | None = None
    score: ClassifierScore | None = None
    about: dict[str, Any] = field(default_factory=dict)


class Disk:
    """Room for features on disk, which is given back at the end, also after an error."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._numbers = folder, itertools.count()

    @contextmanager
    def file(self, count: int, size: int) -> Iterator[BinaryIO]:
        """A new file for `count` vectors of `size` float32 numbers.

        Raises:
            DdpmError: there is no room for them.
        """
        path = self.folder / f"features-{next(self._numbers)}"
        check_free_space(path, 4 * count * size)
        with path.open("wb") as file:
            yield file


@contextmanager
def disk() -> Iterator[Disk]:
    """A `Disk` in the system's folder for temporary files (TMPDIR)."""
    with TemporaryDirectory(prefix="ddpm-features-", ignore_cleanup_errors=True) as folder:
        yield Disk(Path(folder))


def measure(
    images: ImageSet,
    features: Features,
    room: Disk,
    *,
    batch_size: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """See every image of a set once; a last batch that is not full counts like any other.

    Args:
        images: the set.
        features: what to see it by.
        room: for the vectors.
        batch_size: images in one network call.
        seed: decides the parts that a classifier's score is averaged over.
        progress: counts images.

    Raises:
        DdpmError: fewer than two images, or one that cannot be read.
    """
    count = len(images)
    check(count >= 2, f"{images.name} has {count} image{'s' * (count != 1)}; at least 2 are needed")
    moments = Moments(features.size) if features.size <= DENSE else None
    counter, done = Counter(progress, count, "features"), 0
    scores: ScoreSums | None = None
    with room.file(count, features.size) as file:
        for batch in images.batches(batch_size):
            found = features(batch)
            file.write(found.vectors.astype(np.float32).tobytes())
            if moments is not None:
                moments.add(found.vectors)
            if found.probabilities is not None:
                scores = scores or ScoreSums(count, seed=seed)
                scores.add(found.probabilities)
            done += len(batch)
            counter.advance(len(batch))
    check(done == count, f"{images.name} has {done:,} images where {count:,} were counted")
    return Measured(
        images.name,
        features.name,
        None if moments is None else moments.statistics(),
        count,
        np.memmap(file.name, dtype=np.float32, mode="r", shape=(count, features.size)),
        None if scores is None else scores.score(),
    )
