"""Which features fit a model: those of the CIFAR-10 classifier for its images, else pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.evaluation.features import Extracted, FeaturesName, check_features, get_features
from ddpm.model import Ddpm

BATCH = 256  # images in one call of a network
SPACES: dict[FeaturesName, str] = {
    "pixels": "pixels in [-1, 1]",
    "cifar10": "features of the CIFAR-10 classifier",
    "inception": "features of Inception",
}
Embedding = Callable[[UInt8[Tensor, "n c h w"]], Float[np.ndarray, "n d"]]
Extractor = Callable[[UInt8[Tensor, "n c h w"]], Extracted]


def fitting_features(model: Ddpm, asked: FeaturesName | None) -> FeaturesName:
    """The features that were asked for, or by default the best there are for the model's images.

    Raises:
        DdpmError: they have no such features.
    """
    if asked is None:
        return "cifar10" if model.format.shape == (3, 32, 32) else "pixels"
    check_features(asked, model.format.shape)
    return asked


def extractor(model: Ddpm, name: FeaturesName) -> Extractor:
    """A function from a model's images to their features, and classes where there are some.

    Raises:
        DdpmError: the file of a network is missing.
    """
    features, levels = get_features(name, model.format.shape, device=model.device), model.format

    def extract(images: UInt8[Tensor, "n c h w"]) -> Extracted:
        parts = (torch.from_numpy(levels.to_bytes(p.cpu().numpy())) for p in images.split(BATCH))
        found = [features(part) for part in parts]
        known = [part.probabilities for part in found if part.probabilities is not None]
        vectors = np.concatenate([part.vectors for part in found])
        return Extracted(vectors, np.concatenate(known) if known else None)

    return extract


def embedding(model: Ddpm, name: FeaturesName) -> Embedding:
    """The features alone; see `extractor`."""
    extract = extractor(model, name)
    return lambda images: extract(images).vectors
