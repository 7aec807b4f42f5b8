"""The classes of images: which of them a set knows, what they are called, and how one is named.

A source may have `labels`, a long vector of one number for each image, and `class_names`, a tuple.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.errors import DdpmError, check

SHOWN = 20  # classes that a sentence lists

log = logging.getLogger("ddpm")


def labels_of(images: Any) -> Tensor | None:
    """The label of each image of a set, where it knows them."""
    labels: Tensor | None = getattr(images, "labels", None)
    return labels


def names_of(images: Any) -> tuple[str, ...]:
    """What the classes of a set are called, in the order of the labels; () where that is not
    known."""
    return tuple(getattr(images, "class_names", ()) or ())


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes, each once, sorted by text with the numbers in it read as numbers: "2" comes
    before "10", and "cat2" before "cat10"."""

    def key(name: str) -> tuple[list[str | int], str]:
        parts = re.split("([0-9]+)", name)  # text and numbers in turn
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], name

    return tuple(sorted(set(names), key=key))


def listed(names: Iterable[object]) -> str:
    """Names of classes for a sentence, the first ones if there are many."""
    found = list(map(str, names))
    more = f", ... ({len(found):,} in all)" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def check_labels(images: Any, classes: int, names: tuple[str, ...] = ()) -> Tensor:
    """The labels of a set that a model of so many classes can be trained on.

    Args:
        images: any `ImageSource`.
        classes: at least 1.
        names: what the classes are called, where the set does not say it.

    Returns:
        A long vector, [n], of 0..classes-1, on the CPU.

    Raises:
        DdpmError: an image has no label, or the labels are of another number of classes; says how
            many the set has.
    """
    labels, names = labels_of(images), names_of(images) or names
    if labels is None:
        raise DdpmError(
            f"{images.name} has no labels, so network.classes must be 0; labels come with folders "
            "that hold one class each, all equally deep, and with the sets of docs/classes.md"
        )
    labels = torch.as_tensor(labels)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    check(
        whole and labels.shape == (len(images),),
        f"the labels of {images.name} must be whole numbers, one for each of its {len(images):,} "
        f"images; they are {str(labels.dtype).removeprefix('torch.')} of shape "
        f"{tuple(labels.shape)}",
    )
    labels = labels.long().cpu()
    low, high = int(labels.min()), int(labels.max())
    check(low >= 0, f"{images.name} has an image with the label {low}; labels count from 0")
    count = len(names) or high + 1
    called = f" ({listed(names)})" if names else f" (labels 0..{high})"
    check(
        classes == count,
        f"{images.name} has {count:,} classes{called}, and network.classes is {classes:,}; set it "
        f"to {count}",
    )
    check(
        high < classes, f"{images.name} has labels up to {high}, and only {classes} classes{called}"
    )
    absent = sorted(set(range(classes)) - set(np.unique(labels.numpy()).tolist()))
    if absent:
        which = listed(names[i] if names else i for i in absent)
        log.warning("%s has no image of %s, which cannot be learned", images.name, which)
    return labels


def check_given(
    names: tuple[str, ...], label: int | str | None, guidance: float
) -> tuple[int | None, float]:
    """The class and the guidance that somebody wants of a model.

    Args:
        names: of all its classes; () for a model without.
        label: a number or a name (see `find_class`); None for no class.
        guidance: of `ddpm.networks.guidance`.

    Raises:
        DdpmError: the model has no classes or not this one, or the guidance has no meaning.
    """
    number = isinstance(guidance, int | float | np.number) and not isinstance(guidance, bool)
    check(
        number and math.isfinite(guidance) and guidance >= 0,
        f"guidance must be a number of at least 0, got {guidance}",
    )
    if label is None:
        check(guidance == 1, f"guidance {guidance:g} has no effect without a class; give one")
        return None, 1.0
    check(
        bool(names),
        f"this model was trained without classes, so it cannot be given the class {label!r}; leave "
        "it out, or train one with network.classes",
    )
    return find_class(label, names), float(guidance)


def find_class(label: int | str, names: tuple[str, ...]) -> int:
    """The number of the class that somebody names.

    Args:
        label: a number from 0, or a name; where a name is itself a number, the name counts.
        names: of all classes.

    Raises:
        DdpmError: there is no such class; lists those that there are.
    """
    found: int | None = None
    if isinstance(label, str):
        label = unicodedata.normalize("NFC", label)
        plain = [unicodedata.normalize("NFC", name) for name in names]
        if label in plain:
            return plain.index(label)
        if re.fullmatch("[0-9]+", label):
            found = int(label)
    elif isinstance(label, int | np.integer) and not isinstance(label, bool):
        found = int(label)
    if found is None or not 0 <= found < len(names):
        known = listed(name if name == str(i) else f"{i} {name}" for i, name in enumerate(names))
        raise DdpmError(f"there is no class {label!r}; the classes are {known}")
    return found
