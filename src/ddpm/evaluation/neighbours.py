"""Nearest neighbours in the training set: are the samples new, or remembered?"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


def nearest_neighbours(
    images: UInt8[Tensor, "n c h w"], training: UInt8[Tensor, "m c h w"], k: int = 1
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Indices of, and Euclidean distances in grey levels to, the k nearest training images."""
    distances = torch.cdist(
        images.flatten(1).double(),
        training.flatten(1).double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    nearest = distances.topk(k, dim=1, largest=False)
    return nearest.indices, nearest.values
