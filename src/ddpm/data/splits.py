"""Which images are held out, seen from the names of their folders and files.

A name is cut into words: `DIV2K_valid_HR`, `val2017` and `testA` each have one that says "held
out"; `latest` and `contest` have none. Only names below the path that a user gives are looked at:
whoever names `own/test` means it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "test"]
Side = Literal["test", "val", "train"]

ENDS = ("", "s", "ing", "set", "data", "images", "split")


def _compounds(*beginnings: str) -> frozenset[str]:
    """The words that begin so, alone or with what people write behind or before them."""
    plain = {beginning + end for beginning in beginnings for end in ENDS}
    return frozenset(plain | {letter + word for letter in "xy" for word in beginnings})


TEST = _compounds("test", "tst")
VALIDATION = _compounds("val", "valid", "validate", "validation", "dev", "eval", "evaluation") | {
    "holdout",
    "heldout",
}
HELD_OUT_PAIRS = (("held", "out"), ("hold", "out"), ("x", "te"), ("y", "te"))
TRAINING_PAIRS = (("x", "tr"), ("y", "tr"))
TRAINING = _compounds("train")


def words(name: str) -> list[str]:
    """The words of a name, in lower case: cut at what is no letter and where capitals begin."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def side(name: str) -> Side | None:
    """What one name says: test or val (both held out), train, or nothing."""
    found = words(name)
    if TEST.intersection(found) or re.search(r"(?<![a-z])t10k", name.lower()):
        return "test"
    pairs = set(itertools.pairwise(found))
    if VALIDATION.intersection(found) or pairs.intersection(HELD_OUT_PAIRS):
        return "val"
    marked = TRAINING.intersection(found) or pairs.intersection(TRAINING_PAIRS)
    return "train" if marked else None


def side_of_path(names: Iterable[str]) -> Side | None:
    """What the names of a path say together; held out anywhere is held out."""
    found = [side(name) for name in names]
    return next((said for said in ("test", "val", "train") if said in found), None)


@dataclass
class Divided:
    """The names of images by what they are for.

    Args:
        train: to train on.
        test: held out, and measured on.
        spare: held out for validation beside others to test on; used for nothing.
        outside: neither marked for training, as others are, nor held out.
    """

    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def divide(paths: dict[str, list[tuple[str, ...]]]) -> Divided:
    """Divide images by their names.

    File names count only where some begin with a word for training and others with one for what
    is held out: `train_1.png` beside `test_1.png`. Where both kinds are marked, what is marked
    neither way is outside; a folder `train` alone may be one of vehicles.

    Args:
        paths: of each image, every way to it: the folders below the named path and the file's
            own name. Of an image with several ways one that is held out decides.
    """
    files = {side(_first_word(ways[0][-1])) for ways in paths.values()}
    by_file = "train" in files and len(files - {"train", None}) > 0
    sides: dict[str, Side | None] = {}
    for image, ways in paths.items():
        names = [name for way in ways for name in way[:-1]]
        names += [_first_word(way[-1]) for way in ways if by_file]
        sides[image] = side_of_path(names)
    said = set(sides.values())
    both = "train" in said and len(said - {"train", None}) > 0
    divided = Divided()
    for image, found in sides.items():
        if found == "test" or (found == "val" and "test" not in said):
            divided.test.append(image)
        elif found == "val":
            divided.spare.append(image)
        elif found == "train" or not both:
            divided.train.append(image)
        else:
            divided.outside.append(image)
    return divided


def _first_word(name: str) -> str:
    """The first word of a file's name: what stands behind it (`cat-test`) names no split."""
    found = words(name)
    return "t10k" if name.lower().startswith("t10k") else found[0] if found else ""
