"""Quality of the predicted x_0 while samples are drawn (appendix, Figure 10).

The paper shows Inception score and FID. Here they are a Frechet distance of the features that fit,
and the score of their classifier where they have one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import UInt8
from matplotlib.figure import Figure as Plot
from torch import Tensor

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.data.open import Split
from ddpm.errors import whole_number
from ddpm.evaluation import check_frechet, classifier_score, frechet_distance
from ddpm.evaluation.features import FeaturesName
from ddpm.figures.figure import Drawn, SampledFigure
from ddpm.figures.grid import to_picture
from ddpm.figures.progressive import ProgressiveRecorder
from ddpm.figures.spaces import SPACES, extractor, fitting_features
from ddpm.figures.style import styled
from ddpm.model import Ddpm
from ddpm.runtime.progress import Counter, Progress


@dataclass(frozen=True)
class Quality:
    """Frechet distances to one set of images and classifier scores, each of a set as large.

    Args:
        steps: [m], reverse steps behind each moment; see `RateDistortion`.
        distances: [m], of the x_0 predicted then.
        real: of as many other images.
        scores: [m], of the x_0 predicted then; empty for features without a classifier.
        real_score: of as many other images.
    """

    steps: list[int]
    distances: list[float]
    real: float
    scores: list[float]
    real_score: float | None


@dataclass(frozen=True)
class ProgressiveQuality(SampledFigure):
    """Distance of the predicted x_0 from images, while samples are drawn (Figure 10)."""

    shows: ClassVar[str] = "distance of x^_0 from images while samples are drawn (Figure 10)"
    split: ClassVar[Split | None] = "test"

    n: int = 128
    """Samples; as many images to compare them with, and as many others to compare those with."""
    columns: int = 16
    """Moments at which it is measured, evenly spaced over the steps."""
    features: FeaturesName | None = None
    """Whose Frechet distance: pixels, cifar10 (the classifier of CIFAR-10, for 32x32 RGB images)
    or inception; by default the classifier where it fits, else pixels."""

    @property
    def wanted(self) -> int | None:
        """See `Figure.wanted`."""
        return 2 * self.n

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 2)
        whole_number("columns", self.columns, 2)
        name = fitting_features(model, self.features)
        if name == "pixels":
            check_frechet(self.n, self.n, math.prod(model.format.shape))
        extractor(model, name)  # a missing file is told before anything is drawn
        super().check(model)

    def quality(
        self, model: Ddpm, images: UInt8[Tensor, "m c h w"], progress: Progress | None = None
    ) -> Quality:
        """Samples are drawn once, and what is predicted on the way is measured."""
        visited, total = self.visited(model), model.diffusion.num_timesteps
        recorder = ProgressiveRecorder(self.n, model.format, len(visited), self.columns)
        model.sample(self.n, **self.how(model), callback=recorder, progress=progress)
        frames = recorder.frames()
        extract = extractor(model, fitting_features(model, self.features))
        counter = Counter(progress, frames.shape[1] + 1, "measuring distances")
        reference, found, scores = extract(images[: self.n]).vectors, [], []
        for column in [*frames.unbind(dim=1), images[self.n :]]:
            seen = extract(column)
            found.append(frechet_distance(seen.vectors, reference))
            if seen.probabilities is not None:
                scores.append(classifier_score(seen.probabilities).whole)
            counter.advance()
        steps = [total - visited[moment] for moment in recorder.moments]
        real_score = scores.pop() if scores else None
        return Quality(steps, found[:-1], found[-1], scores, real_score)

    @styled
    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A curve for each measure, and a line for real images."""
        self.check(model)
        chosen = self.first_images(model, images)
        what = SPACES[fitting_features(model, self.features)]
        found = self.quality(model, chosen, progress)
        curves = [(f"Frechet distance\n({what})", "log", found.distances, found.real)]
        said = (
            f"Frechet distance ({what}) of the predicted x_0 of {self.n:,} samples to as many "
            f"images: {found.distances[0]:.4g} at first, {found.distances[-1]:.4g} at the end; "
            f"of as many other images {found.real:.4g}"
        )
        if found.real_score is not None:
            curves.append(("classifier score", "linear", found.scores, found.real_score))
            said += (
                f"; classifier score {found.scores[0]:.4g} at first, {found.scores[-1]:.4g} at the "
                f"end, of other images {found.real_score:.4g}"
            )
        figure = Plot(figsize=(1 + 5.5 * len(curves), 4), layout="constrained")
        panels = figure.subplots(1, len(curves), squeeze=False)[0]
        for axes, (label, scale, values, real) in zip(panels, curves, strict=True):
            axes.plot(found.steps, values, marker="o", label=f"predicted x_0, {self.n:,}")
            axes.axhline(real, color="C1", linestyle=":", label=f"other images, {self.n:,}")
            axes.set(xlabel="reverse process steps, T - t", ylabel=label, yscale=scale)
            axes.grid(alpha=0.3, which="both")
            axes.legend()
        return Drawn(to_picture(figure), said)
