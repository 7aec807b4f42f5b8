"""How well classes can be told from features by a straight line: the accuracy of a linear probe.

The probe is least squares on the classes' indicators, each feature scaled to variance 1, with a
penalty that is chosen by leaving out one image after the other (in closed form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ddpm.errors import check

PENALTIES = 10.0 ** np.arange(-2, 6)
Vectors = Float[np.ndarray, "n d"]
Labels = Int[np.ndarray, " n"]
Others = Float[np.ndarray, "m d"]
TheirLabels = Int[np.ndarray, " m"]


@dataclass(frozen=True)
class Accuracy:
    """Share of images whose class a probe told.

    Args:
        value: 0..1.
        images: of how many that it was not fitted on.
    """

    value: float
    images: int

    @property
    def standard_error(self) -> float:
        """Of the value, over images."""
        return math.sqrt(self.value * (1 - self.value) / self.images)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ± {100 * self.standard_error:.1f} %"


def told_by(features: Vectors, labels: Labels, others: Others) -> TheirLabels:
    """The classes that a probe fitted on some images tells of others.

    Args:
        features: of the images that it is fitted on.
        labels: of those, whole numbers.
        others: features of the others.

    Raises:
        DdpmError: one class only, or another number of labels.
    """
    from sklearn.linear_model import RidgeClassifierCV  # takes a second

    check(
        len(labels) == len(features),
        f"there are {len(labels):,} labels for {len(features):,} images; give one for each",
    )
    check(len(np.unique(labels)) > 1, "a probe needs images of at least two classes to fit on")
    features, others = np.asarray(features, np.float64), np.asarray(others, np.float64)
    centre, scale = features.mean(0), features.std(0)
    scale[scale == 0] = 1.0  # of a constant nothing is learned
    probe = RidgeClassifierCV(alphas=PENALTIES).fit((features - centre) / scale, labels)
    told: TheirLabels = probe.predict((others - centre) / scale)
    return told


def probe_accuracy(
    features: Vectors, labels: Labels, others: Others, their_labels: TheirLabels
) -> Accuracy:
    """Of a probe that is fitted on some images, on others.

    Raises:
        DdpmError: see `told_by`.
    """
    right = told_by(features, labels, others) == np.asarray(their_labels)
    return Accuracy(float(right.mean()), len(right))


def folded_accuracy(features: Vectors, labels: Labels, folds: int = 3) -> Accuracy:
    """Of probes that are each fitted on all images but a part, on that part.

    Args:
        features, labels: of one set.
        folds: parts of the set, which are its images 0, folds, 2 folds, ... and so on; at least 2.

    Raises:
        DdpmError: too few images, or one class only.
    """
    check(2 <= folds <= len(labels), f"{len(labels)} images cannot be cut into {folds} parts")
    part = np.arange(len(labels)) % folds
    right = 0
    for held_out in range(folds):
        mine = part == held_out
        told = told_by(features[~mine], labels[~mine], features[mine])
        right += int((told == labels[mine]).sum())
    return Accuracy(right / len(labels), len(labels))
