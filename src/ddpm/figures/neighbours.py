"""Nearest neighbours in the training set: are the samples new, or remembered?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ddpm.data.images import ImageFormat, Indexed
from ddpm.data.inputs import ImageLike
from ddpm.data.open import Split
from ddpm.errors import check, whole_number
from ddpm.evaluation.features import FeaturesName
from ddpm.evaluation.neighbours import nearest_neighbours
from ddpm.figures.figure import Drawn, SampledFigure
from ddpm.figures.grid import image_grid
from ddpm.figures.layout import beside, enlargement, labelled_grid, titled
from ddpm.figures.spaces import SPACES, Embedding, embedding, fitting_features
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter, Progress

CHUNK = 1000  # training images at a time


def neighbours_figure(
    images: UInt8[Tensor, "n c h w"],
    training: UInt8[Tensor, "m c h w"],
    image_format: ImageFormat,
    k: int = 3,
) -> Image.Image:
    """A column an image: the sample on top, its k nearest training images below."""
    indices, _ = nearest_neighbours(images, training, k)
    rows = [images, *(training[indices[:, j]] for j in range(k))]
    return image_grid(torch.cat(rows), image_format, columns=len(images))


def nearest_in(
    images: UInt8[Tensor, "n c h w"],
    training: Indexed,
    k: int,
    embed: Embedding | None = None,
    progress: Progress | None = None,
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Indices of, and Euclidean distances to, the k nearest of a set of any size.

    Args:
        images: whose neighbours are looked for.
        training: where; read a thousand at a time.
        k: how many.
        embed: features in whose space they are near; the pixels by default.
        progress: counts training images.

    Raises:
        DdpmError: there are fewer than k.
    """
    check(
        len(training) >= k, f"{k} neighbours are asked for, and there are {len(training):,} images"
    )
    counter = Counter(progress, len(training), "looking for neighbours")
    distances = torch.full((len(images), 0), torch.inf, dtype=torch.double)
    indices = torch.zeros(len(images), 0, dtype=torch.long)
    queries = None if embed is None else torch.from_numpy(embed(images)).double()
    for rows in torch.arange(len(training)).split(CHUNK):
        chunk = training[rows]
        if embed is None or queries is None:
            place, far = nearest_neighbours(images, chunk, min(k, len(chunk)))
        else:
            features = torch.from_numpy(embed(chunk)).double()
            apart = torch.cdist(queries, features, compute_mode="donot_use_mm_for_euclid_dist")
            far, place = apart.topk(min(k, len(chunk)), dim=1, largest=False)
        # What was found before stands first, so that of equals the first of the set is kept.
        distances = torch.cat([distances, far], dim=1)
        indices = torch.cat([indices, rows[place]], dim=1)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        distances, indices = distances.gather(1, order), indices.gather(1, order)
        counter.advance(len(rows))
    return indices, distances


@dataclass(frozen=True)
class Neighbours(SampledFigure):
    """Samples and the training images nearest to them: by their pixels, and by features."""

    shows: ClassVar[str] = "samples and their nearest training images, by pixels and by features"
    split: ClassVar[Split | None] = "train"

    n: int = 8
    """Samples, a row each."""
    k: int = 5
    """Neighbours of each."""
    features: FeaturesName | None = None
    """Where to look beside the pixels: cifar10 (the classifier of CIFAR-10, for 32x32 RGB images)
    or inception; pixels looks nowhere else. By default the classifier where it fits."""

    @property
    def wanted(self) -> int | None:
        """All training images."""
        return None

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 1)
        whole_number("k", self.k, 1)
        embedding(model, fitting_features(model, self.features))
        super().check(model)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A row a sample, itself on the left; the nearest first."""
        self.check(model)
        training = self.all_images(model, images)
        samples = model.sample(self.n, **self.how(model), progress=progress)
        spaces: dict[str, Embedding | None] = {"pixels": None}
        features = fitting_features(model, self.features)
        if features != "pixels":
            spaces[SPACES[features]] = embedding(model, features)
        columns = 1 + self.k * len(spaces)
        scale = enlargement(model.format, columns)
        blocks = [titled(labelled_grid(samples, model.format, 1, scale=scale), "sample")]
        copies = 0  # by their pixels
        for name, embed in spaces.items():
            found, far = nearest_in(samples, training, self.k, embed, progress)
            copies += int((far[:, 0] == 0).sum()) if embed is None else 0
            nearest = training[found.flatten()]
            grid = labelled_grid(nearest, model.format, self.k, scale=scale)
            blocks.append(titled(grid, f"nearest by {name}"))
        return Drawn(
            beside(blocks),
            f"{self.n:,} samples and the nearest of {len(training):,} images, by "
            f"{' and by '.join(spaces)}; {copies} of the samples are copies, pixel by pixel",
        )
