"""Two networks of one layout, each for its own noise levels: at any t only one of them computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm.networks.unet import UNet


class Experts(nn.Module):
    """One network for t below `switch` and one from there on.

    What little noise asks for is local and what much noise asks for is the layout of the picture,
    so that two networks learn more than one of them, and a call costs what it cost.

    Args:
        below, above: of the same layout, or nearly.
        switch: the first timestep of `above`, at least 1.
    """

    def __init__(self, below: UNet, above: UNet, switch: int) -> None:
        super().__init__()
        self.below, self.above, self.switch = below, above, switch

    @property
    def untold(self) -> str:
        """What decides the output and no weights tell; see `UNet.untold`."""
        return ", ".join(filter(None, [self.below.untold, f"switch {self.switch}"]))

    @property
    def activation_checkpointing(self) -> bool:
        """See `UNet`."""
        return self.below.activation_checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, wanted: bool) -> None:
        self.below.activation_checkpointing = self.above.activation_checkpointing = wanted

    def blocks(self) -> Iterator[nn.Module]:
        """See `UNet.blocks`."""
        yield from self.below.blocks()
        yield from self.above.blocks()

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b o h w"]:
        """See `UNet.forward`; every image goes to the network of its t."""
        if x.is_meta:  # where only arithmetic is counted, t has no value
            return self.below(x, t, labels)
        is_above = t >= self.switch
        first, rest = (torch.nonzero(mine)[:, 0] for mine in (~is_above, is_above))
        if not self.training:
            if len(rest) == 0:
                return self.below(x, t, labels)
            if len(first) == 0:
                return self.above(x, t, labels)
        outputs = [
            self._part(network, rows, x, t, labels)
            for network, rows in ((self.below, first), (self.above, rest))
        ]
        return torch.cat(outputs)[torch.cat([first, rest]).argsort()]

    def _part(
        self, network: UNet, rows: Tensor, x: Tensor, t: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The output for some images of the batch.

        Without any, one is computed for nothing: every weight must have a gradient, since several
        processes wait for one another's.
        """
        none = len(rows) == 0
        if none:
            rows = rows.new_zeros(1)
        part = x[rows].contiguous(memory_format=torch.channels_last)
        output: Tensor = network(part, t[rows], None if labels is None else labels[rows])
        return (0 * output)[:0] if none else output
