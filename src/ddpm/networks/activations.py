"""What a network's layers hold on the way to its output: their names, and their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ddpm.errors import DdpmError, check
from ddpm.networks.experts import Experts

LISTS = (nn.ModuleList, nn.ModuleDict)
INSIDE = (*LISTS, nn.Sequential)  # whose parts are layers, not themselves
VECTORS = (nn.Linear, nn.Embedding)  # told of the time and the class, and not of the image


def layer_names(network: nn.Module) -> list[str]:
    """The outermost layers that see the image, by the names that the network gives them.

    Lists and sequences of modules are looked into. Of two networks by noise level the names are
    those of one, and stand for the layer of whichever computes.

    Args:
        network: any module.
    """
    if isinstance(network, Experts):
        return layer_names(network.below)

    def names(module: nn.Module, before: str) -> Iterator[str]:
        for name, part in module.named_children():
            if isinstance(part, INSIDE):
                yield from names(part, f"{before}{name}.")
            elif not isinstance(part, VECTORS):
                yield before + name

    return list(names(network, ""))


def layers_called(network: nn.Module, layer: str) -> list[nn.Module]:
    """The parts of a network that a name stands for: one, two of two networks, or none."""
    homes = [network.below, network.above] if isinstance(network, Experts) else []
    return [
        parts[layer]
        for parts in (dict(home.named_modules()) for home in (network, *homes))
        if layer and layer in parts
    ]


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Refuse names that the network does not have; parts of a layer may be named, too.

    Raises:
        DdpmError: says which, and lists the layers that there are.
    """
    layer_list = ", ".join(layer_names(network))
    check(len(layers) > 0, f"no layer is named; the layers are {layer_list}")
    for layer in layers:
        called = layers_called(network, layer) if isinstance(layer, str) else []
        check(len(called) > 0, f"this network has no layer {layer!r}; its layers are {layer_list}")
        check(
            not any(isinstance(part, LISTS) for part in called),
            f"{layer!r} is a list of layers and computes nothing itself; the layers are "
            f"{layer_list}",
        )


@contextmanager
def watched(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep what some layers return, while the network is called.

    Args:
        network: any module.
        layers: names of its parts, see `layer_names`.

    Yields:
        A dictionary that every call fills with the outputs, by name; of a layer that computes more
        than once in a call the last one.

    Raises:
        DdpmError: there is no such layer.
    """
    check_layers(network, layers)
    seen: dict[str, Tensor] = {}

    def keep(layer: str, part: nn.Module) -> RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen[layer] = output

        return part.register_forward_hook(hook)

    hooks = [keep(name, part) for name in layers for part in layers_called(network, name)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def pooled(seen: dict[str, Tensor], layer: str, count: int, t: int) -> Tensor:
    """The mean over space of what a layer returned.

    Args:
        seen: see `watched`.
        layer: whose output.
        count: images that the network was called with.
        t: the steps of diffusion, for the message.

    Returns:
        float32, [count, channels].

    Raises:
        DdpmError: the layer did not compute, or returned no image of each.
    """
    if layer not in seen:
        raise DdpmError(f"the layer {layer!r} takes no part at t = {t}; name one that does")
    found = seen[layer]
    check(
        isinstance(found, Tensor) and found.ndim >= 3 and len(found) == count,
        f"the layer {layer!r} does not return one image of channels for each image; name another, "
        "and leave out guidance, with which the network sees every image twice",
    )
    return found.float().flatten(2).mean(2)
