"""How many drawn digits a classifier recognises without doubt."""

from __future__ import annotations

import warnings

from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.images import MemoryImages
from ddpm.errors import DdpmError

CERTAIN = 0.9


class DigitRecogniser:
    """A support-vector classifier fitted on labelled images.

    Args:
        train: the images and labels to fit on.
    """

    def __init__(self, train: MemoryImages) -> None:
        if train.labels is None:
            raise DdpmError(f"{train.name} has no labels to fit a classifier on")
        from sklearn.svm import SVC  # takes a second

        with warnings.catch_warnings():
            # scikit-learn 1.9 advises calibrating one class against the rest instead; that finds
            # most images of pure noise to be digits beyond doubt. Pairwise coupling finds none.
            warnings.filterwarnings("ignore", "The `probability` parameter", FutureWarning)
            self.classifier = SVC(C=10, gamma=1e-3, probability=True, random_state=0)
            self.classifier.fit(train.images.flatten(1).numpy(), train.labels.numpy())

    def fraction(self, images: UInt8[Tensor, "n c h w"]) -> float:
        """The fraction of `images` whose likeliest class has a probability over CERTAIN."""
        classes = self.classifier.predict_proba(images.flatten(1).numpy())
        return float((classes.max(axis=1) > CERTAIN).mean())
