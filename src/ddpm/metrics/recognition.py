"""How many drawn digits a classifier recognises without doubt."""

from __future__ import annotations

from jaxtyping import UInt8
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from torch import Tensor

from ddpm.data.images import MemoryImages
from ddpm.errors import DdpmError


class DigitRecogniser:
    """A support-vector classifier fitted on labelled images.

    Args:
        train: the images and labels to fit on.
    """

    def __init__(self, train: MemoryImages) -> None:
        if train.labels is None:
            raise DdpmError(f"{train.name} has no labels to fit a classifier on")
        self.classifier = CalibratedClassifierCV(SVC(), ensemble=False)
        self.classifier.fit(train.images.flatten(1).numpy(), train.labels.numpy())

    def share(self, images: UInt8[Tensor, "n c h w"], probability: float = 0.9) -> float:
        """The share of `images` whose likeliest class has more than `probability`."""
        classes = self.classifier.predict_proba(images.flatten(1).numpy())
        return float((classes.max(axis=1) > probability).mean())
