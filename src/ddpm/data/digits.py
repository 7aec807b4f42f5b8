"""The embedded data: scikit-learn's 1,797 handwritten digits, 8x8 pixels with 17 grey levels."""

from __future__ import annotations

from typing import Literal

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ddpm.data.images import MemoryImages

HELD_OUT = 297
NAMES = tuple(map(str, range(10)))


def digits(split: Literal["train", "test"]) -> MemoryImages:
    """1,500 digits to train on or the 297 held out; always the same ones, balanced by class."""
    data = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        data.images, data.target, test_size=HELD_OUT, random_state=0, stratify=data.target
    )
    images, labels = (train, train_labels) if split == "train" else (test, test_labels)
    pixels = torch.from_numpy(images).to(torch.uint8).unsqueeze(1)
    return MemoryImages(pixels, 17, f"digits ({split})", torch.from_numpy(labels), NAMES)
