"""The features that sets of images are compared by, each under its own name.

`pixels` sees no objects, `cifar10` is the classifier that comes with the package, `inception` the
network of FID. Only distances of the last are ever called FID, KID or Inception score.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.images import Shape
from ddpm.errors import DdpmError, check
from ddpm.evaluation.cifar10_classifier import trained_classifier
from ddpm.evaluation.inception import SIZE, Inception, find_inception
from ddpm.runtime.device import best_device, exact_arithmetic

FeaturesName = Literal["pixels", "cifar10", "inception"]


@dataclass(frozen=True)
class Extracted:
    """What is known of a batch of images.

    Args:
        vectors: their features, float32.
        probabilities: of the network's classes, float32; None where there are none.
    """

    vectors: Float[np.ndarray, "b d"]
    probabilities: Float[np.ndarray, "b k"] | None = None


@runtime_checkable
class Features(Protocol):
    """Images to vectors, and to probabilities of classes where a classifier makes them."""

    @property
    def name(self) -> FeaturesName:
        """Which features."""
        ...

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        ...

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Extracted:
        """Of images of 256 grey levels."""
        ...


class Pixels:
    """The grey levels themselves, in [-1, 1].

    Args:
        shape: of the images.
    """

    name: FeaturesName = "pixels"

    def __init__(self, shape: Shape) -> None:
        self.size = math.prod(shape)

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Extracted:
        """See `Features`."""
        return Extracted((images.flatten(1).float() / 127.5 - 1).cpu().numpy())


class Cifar10:
    """The penultimate layer of the classifier of CIFAR-10, and its classes."""

    name: FeaturesName = "cifar10"

    def __init__(self, device: torch.device) -> None:
        self.device, self.network = device, trained_classifier().to(device)
        self.size = self.network.head.in_features

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Extracted:
        """See `Features`."""
        with torch.inference_mode(), exact_arithmetic():
            x = images.to(self.device).float() / 127.5 - 1
            vectors = self.network.features(x)
            probabilities = self.network.head(vectors).softmax(dim=1)
        return Extracted(vectors.cpu().numpy(), probabilities.cpu().numpy())


class OfInception:
    """The 2,048 features of Inception, and the classes of the Inception score."""

    name: FeaturesName = "inception"

    def __init__(self, network: Inception) -> None:
        self.network, self.size = network, SIZE

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Extracted:
        """See `Features`."""
        vectors, probabilities = self.network(images)
        return Extracted(vectors.cpu().numpy(), probabilities.cpu().numpy())


def check_features(name: str, shape: Shape) -> None:
    """Refuse features that images of a shape do not have, before anything is loaded.

    Raises:
        DdpmError: no such features, or images of another size or colour.
    """
    names = get_args(FeaturesName)
    check(name in names, f"unknown features '{name}'; choose from {', '.join(names)}")
    channels, height, width = shape
    if name == "cifar10":
        check(
            shape == (3, 32, 32),
            f"the cifar10 features are of RGB images of 32x32 pixels, and these have {channels} "
            f"channel{'s' * (channels > 1)} and {height}x{width}; --features pixels takes any",
        )
    if name == "inception":
        check(
            channels == 3,
            f"Inception takes RGB images, and these have {channels} "
            f"channel{'s' * (channels > 1)}; --features pixels takes any",
        )


def get_features(
    name: FeaturesName,
    shape: Shape,
    *,
    device: str | torch.device | None = None,
    inception: str | os.PathLike[str] | None = None,
) -> Features:
    """The features of a name.

    Args:
        name: pixels, cifar10 or inception.
        shape: (channels, height, width) of the images.
        device: where the network runs; a GPU if there is one by default.
        inception: the file of Inception; see `find_inception`.

    Raises:
        DdpmError: images that have no such features, or a file that is missing or another.
    """
    check_features(name, shape)
    where = best_device() if device is None else torch.device(device)
    if name == "pixels":
        return Pixels(shape)
    if name == "cifar10":
        return Cifar10(where)
    return OfInception(Inception(find_inception(inception), where))


def measure_name(measure: str, features: str, count: int) -> str:
    """What a figure is called: with its features and the number of images that it is of.

    Args:
        measure: frechet, kernel, precision, recall, score or known.
        features: FID, KID and Inception score are names of inception's alone.
        count: of samples, never rounded.

    Raises:
        DdpmError: no such measure.
    """
    own = {"frechet": "fid", "kernel": "kid", "score": "inception_score"}
    words = {"kernel": "kernel_distance", "score": "classifier_score"}
    if measure not in ("frechet", "kernel", "precision", "recall", "score", "known"):
        raise DdpmError(f"unknown measure '{measure}'")
    if features == "inception" and measure in own:
        return f"{own[measure]}_{count}"
    return f"{words.get(measure, measure)}_{features}_{count}"
