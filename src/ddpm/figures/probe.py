"""Linear probes: at which t, and in which layer, the network knows what an image shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure as Plot
from numpy.typing import NDArray

from ddpm.data.images import Indexed
from ddpm.data.inputs import ImageLike
from ddpm.data.labels import labels_of
from ddpm.data.open import Split
from ddpm.errors import DdpmError, check, whole_number
from ddpm.evaluation.features import FeaturesName, get_features
from ddpm.evaluation.linear_probe import Accuracy, folded_accuracy
from ddpm.figures.figure import Drawn, Figure, at_a_time, check_time, in_part, scaled
from ddpm.figures.grid import to_picture
from ddpm.figures.style import styled
from ddpm.likelihood.representation import activations
from ddpm.model import Ddpm
from ddpm.networks.activations import check_layers, layer_names
from ddpm.runtime.progress import Progress

PAPER = (1, 10, 30, 100, 200, 350, 500, 700)  # steps of diffusion out of 1,000
MARKERS = "osD^vP"


@dataclass(frozen=True)
class Probed:
    """Accuracies of linear probes.

    Args:
        t: [m], steps of diffusion.
        layers: m accuracies of each layer, by name.
        pixels: of the grey levels themselves.
        classifier: of the penultimate layer of the classifier that ships, where it fits.
        commonest: share of the class with most images, which is what knowing nothing gives.
    """

    t: list[int]
    layers: dict[str, list[Accuracy]]
    pixels: Accuracy
    classifier: Accuracy | None
    commonest: float

    @property
    def best(self) -> tuple[str, int, Accuracy]:
        """Layer, t and value of the highest accuracy."""
        found = [
            (layer, t, accuracy)
            for layer, values in self.layers.items()
            for t, accuracy in zip(self.t, values, strict=True)
        ]
        return max(found, key=lambda entry: entry[2].value)


@dataclass(frozen=True)
class Probe(Figure):
    """Accuracy of a linear probe on the network's activations, against t, for some layers."""

    shows: ClassVar[str] = "how well a layer tells the class of an image, against t"
    split: ClassVar[Split | None] = "test"

    n: int = 1500
    """Images, spread over the set; of a smaller set all. A third is told by probes that are fitted
    on the others, in turn."""
    t: tuple[int, ...] | None = None
    """Steps of diffusion, 1..T; 1, 10, 30, 100, 200, 350, 500 and 700 of 1,000 by default."""
    layers: tuple[str, ...] | None = None
    """Which layers (`ddpm info` lists them); five from all over the network by default."""
    seed: int = 0
    """Decides the noise, with the pixels of each image."""
    batch_size: int | None = None
    """Images at a time; 64 by default, or fewer large ones."""

    @property
    def wanted(self) -> int | None:
        """A whole set, since its labels are wanted."""
        return None

    def check(self, model: Ddpm) -> None:
        """See `Figure.check`."""
        whole_number("n", self.n, 6)
        whole_number("the seed", self.seed, 0)
        whole_number("batch_size", at_a_time(model, self.batch_size), 1)
        check(self.t is None or len(self.t) > 0, "t names no step of diffusion")
        for t in self.times(model):
            check_time(model, t, low=1)
        check_layers(model.network, self.shown(model))

    def times(self, model: Ddpm) -> list[int]:
        """The t, rising."""
        return sorted({*(self.t or [max(1, scaled(model, t)) for t in PAPER])})

    def shown(self, model: Ddpm) -> list[str]:
        """The layers."""
        if self.layers is not None:
            return list(dict.fromkeys(self.layers))
        names = layer_names(model.network)
        names = [n for n in names if not n.startswith(("conv_", "norm_"))] or names
        places = np.linspace(0, len(names) - 1, min(5, len(names))).round().astype(int)
        return [names[place] for place in places]

    def probed(self, model: Ddpm, images: Indexed, progress: Progress | None = None) -> Probed:
        """Call the network at every t, and fit the probes.

        Raises:
            DdpmError: the images have no labels, or of one class only.
        """
        labels = labels_of(images)
        if labels is None:
            raise DdpmError(
                "this figure needs images with labels, and these have none; name a set that knows "
                "classes (docs/classes.md)"
            )
        count = min(self.n, len(images))
        picked = torch.arange(count) * len(images) // count
        chosen, known = images[picked].cpu(), torch.as_tensor(labels)[picked].cpu().numpy()
        shown, times = self.shown(model), self.times(model)
        found: dict[str, list[Accuracy]] = {layer: [] for layer in shown}
        parts = model.network, model.denoiser(), model.diffusion, model.format, chosen
        for i, t in enumerate(times, start=1):
            held = activations(
                *parts,
                t,
                shown,
                seed=self.seed,
                batch_size=at_a_time(model, self.batch_size),
                device=model.device,
                progress=in_part(progress, f"t {i} of {len(times)}"),
            )
            for layer in shown:
                found[layer].append(folded_accuracy(held[layer].numpy(), known))
        pixels = model.format.to_unit(chosen).flatten(1).numpy()
        commonest = float(np.bincount(known - known.min()).max() / len(known))
        fits = model.format.shape == (3, 32, 32) and model.format.levels == 256
        beside = self.other(model, "cifar10", chosen, known) if fits else None
        return Probed(times, found, folded_accuracy(pixels, known), beside, commonest)

    @staticmethod
    def other(
        model: Ddpm, name: FeaturesName, images: torch.Tensor, labels: NDArray[np.int64]
    ) -> Accuracy:
        """Of a probe on other features."""
        extract = get_features(name, model.format.shape, device=model.device)
        vectors = [extract(part).vectors for part in images.split(256)]
        return folded_accuracy(np.concatenate(vectors), labels)

    def draw(
        self, model: Ddpm, images: ImageLike | Indexed = None, *, progress: Progress | None = None
    ) -> Drawn:
        """A curve a layer, lines for what needs no diffusion."""
        self.check(model)
        found = self.probed(model, self.all_images(model, images), progress)
        layer, t, accuracy = found.best
        return Drawn(
            to_picture(plot(found)),
            f"share of {accuracy.images:,} images whose class a linear probe tells from a layer's "
            f"activations after t steps of diffusion: the best is {layer} at t = {t:,} with "
            f"{accuracy}; from the pixels {found.pixels}",
        )


@styled
def plot(found: Probed) -> Plot:
    """The accuracies against t."""
    figure = Plot(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, (layer, values) in enumerate(found.layers.items()):
        shares = [100 * value.value for value in values]
        errors = [100 * value.standard_error for value in values]
        style: dict[str, Any] = {"color": f"C{i}", "marker": MARKERS[i % len(MARKERS)]}
        axes.errorbar(found.t, shares, errors, label=layer, markersize=5, capsize=2, **style)
    lines = [("pixels", found.pixels.value, ":"), ("commonest class", found.commonest, "-")]
    if found.classifier is not None:
        lines.insert(0, ("classifier that ships", found.classifier.value, "--"))
    for label, value, line in lines:
        axes.axhline(100 * value, color="black", linewidth=1, linestyle=line, label=label)
    axes.set(xlabel="steps of diffusion, t", ylabel="classes told (%)", xscale="log")
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
