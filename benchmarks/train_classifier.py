"""Train the classifier of `--features cifar10` on CIFAR-10's training images.

    python benchmarks/train_classifier.py PATH/TO/CIFAR-10 [--epochs 30] [--out FILE.safetensors]

Shifts of up to four pixels, flips, and a square of eight pixels cut out; Nesterov's momentum with a
one-cycle learning rate. Prints the accuracy on the test images, which decide nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ddpm.data.open import open_data
from ddpm.evaluation.cifar10_classifier import WEIGHTS, Cifar10Classifier, ConvBlock

SHIFT, HOLE = 4, 8  # pixels


@dataclass(frozen=True)
class Options:
    """How to train."""

    data: tyro.conf.Positional[Path]
    """CIFAR-10 in any form that `ddpm train cifar10` reads."""
    epochs: int = 30
    """Passes over the 50,000 images."""
    batch: int = 256
    """Images a step."""
    lr: float = 0.4
    """Highest learning rate, of the mean loss of a batch."""
    weight_decay: float = 5e-4
    """Of all parameters."""
    seed: int = 0
    """Of the initial weights, the order and the changes of the images."""
    out: Path = WEIGHTS
    """Where the weights go, in half precision."""


def read(path: Path, split: str) -> tuple[UInt8[Tensor, "n 3 32 32"], Tensor]:
    """All images of a split with their labels."""
    source = open_data(path, split)
    return source.images, source.labels


def augmented(images: UInt8[Tensor, "n 3 32 32"]) -> Float[Tensor, "n 3 32 32"]:
    """The images in [-1, 1], each shifted, perhaps flipped, and with a hole."""
    n = len(images)
    x = F.pad(images.float() / 127.5 - 1, (SHIFT,) * 4, mode="reflect")
    rows, columns = (torch.randint(0, 2 * SHIFT + 1, (n, 1)) + torch.arange(32) for _ in "yx")
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    x = x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    top, left = torch.randint(0, 32 - HOLE + 1, (2, n, 1))
    inside = [(torch.arange(32) >= at) & (torch.arange(32) < at + HOLE) for at in (top, left)]
    x[inside[0][:, :, None] & inside[1][:, None, :]] = 0
    return x.permute(0, 3, 1, 2)


def normalise(network: Cifar10Classifier) -> None:
    """Put a batch normalisation behind every convolution."""
    for block in network.modules():
        if isinstance(block, ConvBlock):
            conv = block.conv
            conv.bias.data.zero_()
            block.conv = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels))


def fold(network: Cifar10Classifier) -> None:
    """Make one convolution of each with its normalisation."""
    for block in network.eval().modules():
        if isinstance(block, ConvBlock):
            block.conv = fuse_conv_bn_eval(*block.conv)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose likeliest class is theirs."""
    with torch.inference_mode():
        logits = torch.cat([network(b.float() / 127.5 - 1) for b in images.split(500)])
    return float((logits.argmax(1) == labels).float().mean())


def main(options: Options) -> None:
    """Train, fold, write, measure what was written."""
    torch.manual_seed(options.seed)
    images, labels = read(options.data, "train")
    test = read(options.data, "test")
    network = Cifar10Classifier()
    normalise(network)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=options.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=options.weight_decay,
    )
    steps = len(images) // options.batch * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=steps, pct_start=0.25, final_div_factor=1e4
    )
    begun = time.perf_counter()
    for epoch in range(options.epochs):
        network.train()
        total = 0.0
        for index in torch.randperm(len(images)).split(options.batch):
            if len(index) < options.batch:
                continue
            x = augmented(images[index]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * options.batch
        print(
            f"epoch {epoch + 1}/{options.epochs}: loss {total / len(images):.4f}, "
            f"test {accuracy(network.eval(), *test):.4f}, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    fold(network)
    weights = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    save_file(weights, options.out)
    network.load_state_dict({k: v.float() for k, v in weights.items()})
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    print(f"accuracy as written: {accuracy(network, *test):.4f}")


if __name__ == "__main__":
    main(tyro.cli(Options))
