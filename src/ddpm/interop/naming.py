"""What other code bases call the layers of the U-Net, and tensors by one name for another.

A `Naming` is a table. Names are made from the place of a layer and looked up whole; none is changed
in parts, so the way back is the same table read from the right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.errors import DdpmError, check
from ddpm.networks.unet import UNet

Tensors = dict[str, Tensor]
BLOCK = re.compile(r"(down|up)\.(\d+)\.(\d+)\.(res|attention)\.(\w+)")
RESAMPLE = re.compile(r"(downsample|upsample)s\.(\d+)\.conv")
MIDDLE = re.compile(r"(middle1|middle_attention|middle2)\.(\w+)")
LISTED, LONGEST = 3, 80  # names that a message shows, and characters of one


@dataclass(frozen=True)
class Naming:
    """The names of one code base.

    The templates of `places` know {level}, 0 for the whole image; {block} within it; {order}, the
    levels on the way up counted from the smallest image; and for code bases that number everything,
    {index} and, of an upsampling, {after}, its place in its block.

    Args:
        single: name of ours -> theirs, of the layers that stand alone.
        places: down.res, down.attention, up.res, up.attention, downsample, upsample, middle1,
            middle_attention and middle2 -> template.
        res, attention: the layers inside, ours -> theirs.
    """

    single: Mapping[str, str]
    places: Mapping[str, str]
    res: Mapping[str, str]
    attention: Mapping[str, str]

    def layer(self, ours: str, network: UNet) -> str:
        """What they call the layer that we call `ours`.

        Raises:
            DdpmError: they have none like it.
        """
        per_level, levels = len(network.down[0]), len(network.down)  # type: ignore[arg-type]
        if found := BLOCK.fullmatch(ours):
            way, i, block, kind, part = found[1], int(found[2]), int(found[3]), found[4], found[5]
            index = (
                1 + i * (per_level + 1) + block if way == "down" else i * (per_level + 1) + block
            )
            level = i if way == "down" else levels - 1 - i
            place = self.places[f"{way}.{kind}"].format(
                level=level, block=block, order=i, index=index
            )
            return f"{place}.{getattr(self, kind)[part]}"
        if found := RESAMPLE.fullmatch(ours):
            way, i = found[1], int(found[2])
            down = way == "downsample"
            attends = any(".attention." in name for name, _ in network.up[i].named_parameters())
            return self.places[way].format(
                level=i if down else levels - 1 - i,
                order=i,
                index=(i + 1) * (per_level + 1) - (0 if down else 1),
                after=1 + attends,
            )
        if found := MIDDLE.fullmatch(ours):
            inner = self.attention if found[1] == "middle_attention" else self.res
            return f"{self.places[found[1]]}.{inner[found[2]]}"
        check(ours in self.single, f"the other code has no counterpart of the layer '{ours}'")
        return self.single[ours]


def names(network: UNet, naming: Naming) -> dict[str, str]:
    """Our name of every tensor of a network -> theirs."""
    found = {}
    for ours in network.state_dict():
        layer, _, kind = ours.rpartition(".")
        found[ours] = f"{naming.layer(layer, network)}.{kind}"
    return found


def to_ours(theirs: Tensors, network: UNet, naming: Naming, where: str) -> Tensors:
    """Tensors by our names, float32, in the shapes of the network.

    A 1x1 convolution may come as the matrix that it is.

    Args:
        theirs: all that they have.
        network: of the same layout, for its names and shapes.
        where: they were read, for messages.

    Raises:
        DdpmError: some are missing, superfluous, of another shape, or no finite numbers.
    """
    table = names(network, naming)
    missing = [name for name in table.values() if name not in theirs]
    surplus = sorted(set(theirs) - set(table.values()))
    check(not missing, f"{where} lacks {listed(missing)}, which its network needs")
    check(not surplus, f"{where} has {listed(surplus)}, for which its network has no place")
    state = network.state_dict()
    return {
        ours: fitted(theirs[name], state[ours], f"'{name}' in {where}")
        for ours, name in table.items()
    }


def to_theirs(ours: Tensors, network: UNet, naming: Naming, matrices: bool) -> Tensors:
    """Tensors by their names; the inverse of `to_ours`.

    Args:
        ours: the weights of the network.
        network: for its names.
        naming: of the other code base.
        matrices: write the 1x1 convolutions of attentions as the matrices that they are.
    """
    written = {}
    for name, theirs in names(network, naming).items():
        value = ours[name].detach().cpu()
        projection = re.search(r"attention\.(q|k|v|proj)\.weight$", name)
        written[theirs] = (value[:, :, 0, 0] if matrices and projection else value).contiguous()
    return written


def fitted(value: Tensor, like: Tensor, what: str) -> Tensor:
    """A tensor as float32 in the shape of `like`.

    Raises:
        DdpmError: it cannot be, or is no finite number.
    """
    check_dense(value, what)
    check(
        plain(value.shape) == plain(like.shape),
        f"{what} has the shape {tuple(value.shape)}, and its network needs {tuple(like.shape)}",
    )
    numbers = value.detach().to(torch.float32)
    check(bool(numbers.isfinite().all()), f"{what} holds values that are no finite numbers")
    return numbers.reshape(like.shape).clone(memory_format=torch.contiguous_format)


def check_dense(value: Tensor, what: str) -> None:
    """Refuse tensors that are no plain array of floating point numbers.

    Raises:
        DdpmError: it is one.
    """
    check(
        value.is_floating_point(),
        f"{what} is of type {value.dtype}; only weights as floating point numbers can be read",
    )
    check(
        value.layout == torch.strided and not value.is_nested and not value.is_meta,
        f"{what} is no plain array of numbers (but sparse, nested or empty of values); save it as "
        "a dense tensor",
    )


def plain(shape: torch.Size) -> tuple[int, ...]:
    """A shape without the 1 x 1 (or 1) at the end that makes a convolution of a matrix."""
    sizes = tuple(shape)
    return sizes[:2] if len(sizes) in (3, 4) and set(sizes[2:]) == {1} else sizes


def listed(found: list[str]) -> str:
    """The first of some names, and how many there are: '3 tensors ('a', 'b', 'c')'."""
    shown = ", ".join(repr(name[:LONGEST]) for name in found[:LISTED])
    more = ", ..." * (len(found) > LISTED)
    return f"{len(found)} tensor{'s' * (len(found) != 1)} ({shown}{more})"


def shape_of(tensors: Tensors, name: str, where: str) -> torch.Size:
    """The shape of the weights of a layer that must be there.

    Raises:
        DdpmError: it is not, or is of no convolution or matrix.
    """
    if name not in tensors:
        raise DdpmError(f"{where} lacks '{name}', so what network it is of cannot be told")
    check_dense(tensors[name], f"'{name}' in {where}")
    shape = tensors[name].shape
    check(
        len(shape) >= 2 and 0 not in shape,
        f"'{name}' in {where} has the shape {tuple(shape)}, which weights of a layer cannot have",
    )
    return shape
