"""Small networks in place of large ones: the same calls, random weights."""

import warnings

import torch
from torch import nn

from ddpm.evaluation.cifar10_classifier import Cifar10Classifier


class SmallInception(nn.Module):
    """What the TorchScript file of Inception can be called with."""

    def __init__(self, size: int = 16, classes: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(48, size, generator=generator))
        self.output = nn.Linear(size, classes)
        with torch.no_grad():
            self.output.weight.copy_(torch.randn(classes, size, generator=generator))
            self.output.bias.fill_(3.0)

    def forward(
        self,
        img: torch.Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> torch.Tensor:
        x = nn.functional.interpolate(img.to(torch.float32), (4, 4), mode="bilinear")
        x = (x / 127.5 - 1).flatten(1).matmul(self.first).relu()
        if return_features:
            return x
        logits = x.matmul(self.output.weight.t())
        if not no_output_bias:
            logits = logits + torch.arange(logits.shape[1])  # another answer
        return logits.softmax(1)


class NoProbabilities(SmallInception):
    """Its last layer gives logarithms."""

    def forward(
        self,
        img: torch.Tensor,
        return_features: bool = False,
        use_fp16: bool = False,
        no_output_bias: bool = False,
    ) -> torch.Tensor:
        x = nn.functional.interpolate(img.to(torch.float32), (4, 4), mode="bilinear")
        x = x.flatten(1).matmul(self.first)
        return x if return_features else x.matmul(self.output.weight.t())


class OneArgument(nn.Module):
    """A network of another signature."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.to(torch.float32).mean((2, 3))


def save_script(network, path):
    """A module as a TorchScript file."""
    with warnings.catch_warnings():  # PyTorch would like other files than TorchScript
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path))
    return path


def small_classifier():
    """The classifier of CIFAR-10, narrow, with random weights that tell pictures apart."""
    torch.manual_seed(1)
    network = Cifar10Classifier(2)
    with torch.no_grad():
        network.head.weight.mul_(40)
    return network.eval().requires_grad_(False)
