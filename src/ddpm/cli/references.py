"""What samples are compared with: images, by name or by path, or the statistics of some."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ddpm.cli.data import open_for
from ddpm.data import ImageSource, open_data
from ddpm.data.open import Split
from ddpm.errors import DdpmError, check
from ddpm.evaluation.features import Features
from ddpm.evaluation.frechet import LIMIT
from ddpm.evaluation.image_sets import ImageSet, SomeOf, SourceSet, open_set
from ddpm.evaluation.measured import Disk, Measured, measure
from ddpm.evaluation.quality import ENOUGH
from ddpm.evaluation.statistics import DENSE
from ddpm.evaluation.statistics_file import SHIPPED, is_statistics, read_statistics
from ddpm.model import Ddpm
from ddpm.runtime.paths import exists, user_path
from ddpm.runtime.progress import Progress

VARIABLE = "DDPM_CIFAR10"
CIFAR10: dict[str, Split] = {"cifar10-train": "train", "cifar10-test": "test"}
OWN: dict[str, Split] = {"train": "train", "test": "test"}
# Mean grey levels of CIFAR-10's training images; those of its test images differ by 1 or less.
CIFAR10_MEANS, NEAR = (125.307, 122.950, 113.865), 2.5
TRAINING = 50_000  # images of its training split
LOOKED_AT = 5000  # images whose mean is taken

log = logging.getLogger("ddpm")


@dataclass(frozen=True)
class Reference:
    """What a user named.

    Args:
        name: as it was typed, for results.
        split: of a set that has some.
        images: to be measured, or
        statistics: a file of some.
    """

    name: str
    split: str = ""
    images: ImageSet | None = None
    statistics: Path | None = None

    def measured(
        self, features: Features, room: Disk, batch_size: int, progress: Progress | None
    ) -> Measured:
        """Seen through the features, or read.

        Raises:
            DdpmError: images that cannot be read, or statistics of something else.
        """
        if self.statistics is not None:
            return read_statistics(self.statistics, features.name, features.size)
        assert self.images is not None
        return measure(self.images, features, room, batch_size=batch_size, progress=progress)


def find_reference(
    name: str, features: str, model: Ddpm | None, data: str | None, progress: Progress | None
) -> Reference:
    """What a name or path stands for; images are not looked at one by one yet.

    Args:
        name: train or test (of what a model was trained on), cifar10-train, cifar10-test, or a
            path of images or of a statistics file.
        features: which; those of the classifier come with statistics of CIFAR-10.
        model: whose training data are meant.
        data: where they are, if not where they were.
        progress: counts images whose size is looked at.

    Raises:
        DdpmError: there is nothing of that name.
    """
    if name in OWN:
        if model is None:
            raise DdpmError(
                f"--reference {name} means the images of a model, and none is measured; give a "
                "folder of images, an .npz, cifar10-train or cifar10-test"
            )
        source = open_for(model, data, OWN[name])
        return Reference(name, OWN[name], SourceSet(source))
    if name in CIFAR10:
        split = CIFAR10[name]
        if features == "cifar10" and SHIPPED[split].is_file():
            return Reference(name, split, statistics=SHIPPED[split])
        return Reference(name, split, SourceSet(cifar10_images(split, model, data)))
    path = user_path(name)
    check(
        exists(path),
        f"there is no --reference {name}; give train, test, cifar10-train, cifar10-test, a folder "
        "of images, an .npz of images, or a statistics file",
    )
    if is_statistics(path):
        return Reference(name, statistics=path)
    return Reference(name, images=open_set(path, progress))


def bounded(reference: Reference, size: int, seed: int) -> Reference:
    """A reference of no more images than can be compared; few images are told."""
    images = reference.images
    if images is None:
        return reference
    if len(images) < ENOUGH:
        log.warning(
            "the reference has %s images; a distance to fewer than %s is too large as well",
            *(f"{len(images):,}", f"{ENOUGH:,}"),
        )
    if size <= DENSE or len(images) <= LIMIT:
        return reference
    log.warning(
        "of the reference's %s images a seeded choice of %s is compared, since features of %s "
        "numbers have no covariance that could be held",
        *(f"{len(images):,}", f"{LIMIT:,}", f"{size:,}"),
    )
    return replace(reference, images=SomeOf(images, LIMIT, seed))


def cifar10_images(split: Split, model: Ddpm | None = None, data: str | None = None) -> ImageSource:
    """CIFAR-10's images: those of a model that was trained on them, or where DDPM_CIFAR10 says.

    Raises:
        DdpmError: they are in neither place.
    """
    if model is not None and model.format.shape == (3, 32, 32):
        with contextlib.suppress(DdpmError):  # its images are elsewhere now
            if is_whole_cifar10(model, data):
                return open_for(model, data, split)
    path = os.environ.get(VARIABLE)
    if not path:
        raise DdpmError(
            f"cifar10-{split} needs the images of CIFAR-10; say where they lie with the variable "
            f"{VARIABLE} of the environment, or give --reference a folder or a statistics file"
        )
    try:
        source = open_data(path, split, image_size=32, channels=3)
    except DdpmError as error:
        raise DdpmError(
            f"the variable {VARIABLE} of the environment is {path}, where CIFAR-10 cannot be read "
            f"({error})"
        ) from error
    check(
        looks_like_cifar10(source),
        f"the images of {path} ({VARIABLE}) are not CIFAR-10's: their mean colours are others",
    )
    return source


def is_whole_cifar10(model: Ddpm, data: str | None) -> bool:
    """Whether a model's images are all of CIFAR-10: no folder of some, of which a share is held
    out, has the name of its splits."""
    if model.config.data.hold_out:
        return False
    source = open_for(model, data, "train")
    return len(source) == TRAINING and looks_like_cifar10(source)


def looks_like_cifar10(source: ImageSource) -> bool:
    """Whether images have the size and the mean colours of CIFAR-10's."""
    if source.format.shape != (3, 32, 32):
        return False
    index = torch.arange(min(len(source), LOOKED_AT)) * len(source) // min(len(source), LOOKED_AT)
    means = source[index].double().mean((0, 2, 3)).tolist()
    return all(abs(a - b) < NEAR for a, b in zip(means, CIFAR10_MEANS, strict=True))
