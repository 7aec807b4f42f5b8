"""The classifier of CIFAR-10 that comes with the package: features where Inception is not at hand.

Its distance is never called FID: that name belongs to Inception's features. How it was trained:
`benchmarks/train_classifier.py` and the card beside its weights.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).with_name("cifar10-classifier.safetensors")
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
WIDTH = 24


class ConvBlock(nn.Module):
    """3x3 convolution and ReLU; training puts a batch normalisation between them, which is folded
    into the weights afterwards."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        return F.relu(self.conv(x))


class Residual(nn.Module):
    """x plus two blocks of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ConvBlock(channels, channels), ConvBlock(channels, channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.blocks(x)


class Cifar10Classifier(nn.Module):
    """A residual network of nine layers (He et al. 2016, made narrow).

    Args:
        width: channels of the first layer; the last has eight times as many.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(3, width),
            ConvBlock(width, 2 * width),
            nn.MaxPool2d(2),
            Residual(2 * width),
            ConvBlock(2 * width, 4 * width),
            nn.MaxPool2d(2),
            ConvBlock(4 * width, 8 * width),
            nn.MaxPool2d(2),
            Residual(8 * width),
        )
        self.head = nn.Linear(8 * width, len(CLASSES))

    def features(self, x: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n d"]:
        """The penultimate layer.

        Args:
            x: RGB images in [-1, 1].
        """
        return self.layers(x).mean((2, 3))

    def forward(self, x: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n 10"]:
        """Logarithms of the classes' probabilities, but for a constant."""
        return self.head(self.features(x))


def trained_classifier() -> Cifar10Classifier:
    """The one that comes with the package, in float32."""
    network = Cifar10Classifier()
    network.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    return network.eval().requires_grad_(False)
