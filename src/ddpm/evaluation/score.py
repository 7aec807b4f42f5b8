"""What a classifier makes of samples: the score of Salimans et al. (2016), and how many it knows.

With Inception's probabilities it is the Inception score. It is a mean over parts of the set; the
parts here are of a seeded shuffle, since consecutive images may be sorted by their class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ddpm.errors import check

SPLITS = 10
SMALLEST = 100  # images of a part; of fewer the score is not one of the set
CERTAIN = 0.9
ALMOST_ONE = 1e-3  # how far from 1 the probabilities of an image may sum to


@dataclass(frozen=True)
class ClassifierScore:
    """exp of the mean of KL(p(y|x) | p(y)).

    Args:
        value: the mean over the parts.
        std: the standard deviation among them; None for a single part.
        splits: how many.
        whole: the score of the whole set.
        known: the share of images whose likeliest class has a probability over `CERTAIN`.
        count: images.
    """

    value: float
    std: float | None
    splits: int
    whole: float
    known: float
    count: int


class ScoreSums:
    """The score of probabilities that come in batches.

    mean KL(p_i | p) = mean of sum p_i log p_i - sum p log p with p the mean of all p_i, so two sums
    a part are all that is kept.

    Args:
        count: images that will come.
        splits: parts; fewer where a part would have under `SMALLEST` images.
        seed: decides which images are of which part.

    Raises:
        DdpmError: there are no images.
    """

    def __init__(self, count: int, splits: int = SPLITS, seed: int = 0) -> None:
        check(count >= 1 and splits >= 1, "a classifier's score needs at least one image")
        self.count, self.splits = count, max(min(splits, count // SMALLEST), 1)
        ends = [(i + 1) * count // self.splits for i in range(self.splits)]
        place = np.random.default_rng(seed).permutation(count)
        self.part = np.searchsorted(ends, place, side="right")
        self.seen = self.certain = 0
        self.sums: np.ndarray | None = None
        self.entropies, self.counts = np.zeros(self.splits), np.zeros(self.splits)

    def add(self, probabilities: Float[np.ndarray, "b k"]) -> None:
        """Of the next images.

        Raises:
            DdpmError: they are no probabilities, or of more images than were to come.
        """
        p = probabilities.astype(np.float64)
        check(
            bool((p >= 0).all() and (abs(p.sum(axis=1) - 1) < ALMOST_ONE).all()),
            "what a classifier gave are no probabilities",
        )
        check(self.seen + len(p) <= self.count, "there are more images than were counted")
        if self.sums is None:
            self.sums = np.zeros((self.splits, p.shape[1]))
        part = self.part[self.seen : self.seen + len(p)]
        np.add.at(self.sums, part, p)
        np.add.at(self.entropies, part, _entropy(p))
        np.add.at(self.counts, part, 1)
        self.certain += int((p.max(axis=1) > CERTAIN).sum())
        self.seen += len(p)

    def score(self) -> ClassifierScore:
        """Of all images.

        Raises:
            DdpmError: some have not come.
        """
        check(self.seen == self.count, f"{self.seen:,} of {self.count:,} images were classified")
        assert self.sums is not None
        means = self.sums / self.counts[:, None]
        parts = np.exp(self.entropies / self.counts - _entropy(means))
        mean = self.sums.sum(axis=0, keepdims=True) / self.count
        whole = np.exp(self.entropies.sum() / self.count - _entropy(mean)[0])
        return ClassifierScore(
            float(parts.mean()),
            float(parts.std()) if self.splits > 1 else None,
            self.splits,
            float(whole),
            self.certain / self.count,
            self.count,
        )


def _entropy(p: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """sum p log p of each row, with 0 log 0 = 0."""
    return (p * np.log(np.where(p > 0, p, 1))).sum(axis=1)


def classifier_score(
    probabilities: Float[np.ndarray, "n k"], splits: int = SPLITS, seed: int = 0
) -> ClassifierScore:
    """The score of probabilities that are at hand; see `ScoreSums`.

    Raises:
        DdpmError: there are none, or they are no probabilities.
    """
    sums = ScoreSums(len(probabilities), splits, seed)
    for first in range(0, len(probabilities), 4096):
        sums.add(probabilities[first : first + 4096])
    return sums.score()
