"""The exact last stage: pixels given x^_0(x_t), by a small causal network and a range coder.

Section 3.3 of the paper leaves "a more powerful decoder like a conditional autoregressive model" to
future work; this is one. From the rounding of x^_0 on everything is integers, so that a file made
anywhere decodes anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

import ddpm.codec.mixture as mixture
import ddpm.codec.range_coder as range_coder
from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.integer_network import IntegerNetwork, Layer
from ddpm.codec.snapping import MARGIN, Grid, to_bytes
from ddpm.codec.windows import OUTSIDE, REACH, Layout, Sizes
from ddpm.errors import check
from ddpm.runtime.threads import one_thread

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Images = Sequence[UInt8[Tensor, "c _h _w"]]
Predicted = Sequence[Float[Tensor, "c _h _w"]]

PREFIX = "last_stage."  # of its tensors in a checkpoint
CHUNK = 4096  # pixels that are computed at once, or a wave if it has more


@dataclass(frozen=True, eq=False)
class LastStage:
    """A frozen network, for images of any size.

    Args:
        levels: grey levels of a pixel, 2..256.
        grid: that x^_0 is rounded to.
        network: of as many channels as the images have.

    Raises:
        DdpmError: another number of grey levels.
    """

    levels: int
    grid: Grid
    network: IntegerNetwork

    def __post_init__(self) -> None:
        check(2 <= self.levels <= 256, f"a pixel has 2..256 grey levels, got {self.levels}")

    def tensors(self) -> dict[str, Tensor]:
        """As a checkpoint stores it: integers."""
        network = self.network
        layers = (network.skip, *network.layers)
        shape = self.levels, self.grid.cell, self.grid.block, network.channels, network.components
        found = {
            f"{PREFIX}shape": torch.tensor(shape),
            f"{PREFIX}knots": torch.from_numpy(network.knots.astype(np.int64)),
            f"{PREFIX}bits": torch.tensor([layer.bits for layer in layers]),
        }
        for number, layer in enumerate(layers):
            found[f"{PREFIX}{number}.weight"] = layer.weight
            found[f"{PREFIX}{number}.bias"] = layer.bias
        return found

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> LastStage | None:
        """The inverse of `tensors`, from all tensors of a checkpoint; None if there is none.

        Raises:
            DdpmError: tensors that do not fit together.
            KeyError: some are missing.
        """
        if not any(name.startswith(PREFIX) for name in tensors):
            return None
        shape, bits = tensors[f"{PREFIX}shape"].tolist(), tensors[f"{PREFIX}bits"].tolist()
        check(len(shape) == 5 and len(bits) > 1, "this last stage is damaged")
        skip, *layers = (
            Layer(tensors[f"{PREFIX}{i}.weight"], tensors[f"{PREFIX}{i}.bias"], count)
            for i, count in enumerate(bits)
        )
        levels, cell, block, channels, components = shape
        knots = tensors[f"{PREFIX}knots"].numpy()
        network = IntegerNetwork(channels, components, knots, skip, tuple(layers))
        return LastStage(levels, Grid(cell, block), network)

    def digest(self) -> bytes:
        """64 bytes that differ for every other stage, for a model's fingerprint."""
        found = hashlib.blake2b()
        for name, tensor in sorted(self.tensors().items()):
            found.update(f"{name} {tuple(tensor.shape)} ".encode())
            found.update(tensor.contiguous().numpy().astype("<i8").tobytes())
        return found.digest()

    def encode(
        self, images: Images, xstart: Predicted, timestep: int, margin: float = MARGIN
    ) -> bytes:
        """The code of all images.

        Args:
            images: grey levels, of any sizes.
            xstart: the network's x^_0 of each, on [-1, 1].
            timestep: of the whole chain, whose x_t the network saw.
            margin: in bytes, by which another machine's x^_0 may differ.

        Raises:
            DdpmError: images or x^_0 that do not fit.
        """
        low, high, out, _ = self.shares(images, xstart, timestep, margin)
        return out.bytes() + range_coder.encode(low.reshape(-1), high.reshape(-1))

    def bits(
        self, images: Images, xstart: Predicted, timestep: int, margin: float = MARGIN
    ) -> NDArray[np.float64]:
        """What each image costs in bits, without being coded; arguments as those of `encode`.

        The bits of the grid's offsets are divided among the images by their size.
        """
        low, high, _, count = self.shares(images, xstart, timestep, margin)
        layout = Layout(_sizes(images))
        cost = np.empty(layout.pixels)
        cost[layout.order] = (range_coder.TOTAL_BITS - np.log2(high - low)).sum(axis=1)
        areas = np.array([height * width for height, width in layout.sizes])
        parts = np.split(cost, np.cumsum(areas)[:-1])
        return np.array([part.sum() for part in parts]) + count * areas / areas.sum()

    def decode(
        self, code: bytes, sizes: Sizes, xstart: Predicted, timestep: int, complete: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Images, and which of their values are known for sure; the others are those of x^_0.

        Args:
            code: of `encode`, or a beginning of it.
            sizes: height and width of each image.
            xstart, timestep: as the encoder had them; x^_0 may be off by less than the margin.
            complete: nothing of the code is missing.

        Returns:
            uint8 and bool tensors, [c, h, w] each.

        Raises:
            DdpmError: no encoder wrote this, or x^_0 does not fit.
        """
        values = self._flat(xstart, sizes)
        guess = np.rint(to_bytes(values) * ((self.levels - 1) / 255)).astype(np.uint8)
        levels, bits, done = _rows(guess, sizes, self.network.channels), BitReader(code), 0
        layout = Layout(sizes)
        try:
            snapped = self.grid.rounded(values, self.grid.read(len(values), bits))
        except EndOfData:
            pass
        else:
            rest = np.frombuffer(code[-(-bits.position // 8) :], dtype=np.uint8)
            with one_thread():
                done = self._decode(layout, levels, snapped, timestep, rest, complete)
        known = np.zeros(levels.shape, dtype=bool)
        known[layout.order] = (np.arange(levels.size) < done).reshape(levels.shape)
        return _images(levels, sizes), _images(known, sizes)

    def shares(
        self, images: Images, xstart: Predicted, timestep: int, margin: float
    ) -> tuple[Ints, Ints, BitWriter, int]:
        """[pixels, channels] each in the order of the code, the lower and upper end of each value's
        share; the offsets of the grid, and how many bits they take.
        """
        sizes, channels, out = _sizes(images), self.network.channels, BitWriter()
        for image in images:
            check(
                image.dtype == torch.uint8
                and image.shape[0] == channels
                and (not image.numel() or int(image.max()) < self.levels),
                f"this last stage takes uint8 images of {channels} channels and grey levels "
                f"0..{self.levels - 1}",
            )
        values = self._flat(xstart, sizes)
        tries, _ = self.grid.choose(values, margin)
        count = self.grid.write(tries, len(values), out)
        centres = _rows(self.grid.rounded(values, tries), sizes, channels)
        pixels = _rows(
            np.concatenate([image.numpy().reshape(-1) for image in images]), sizes, channels
        )
        tables, layout = mixture.tables(self.levels), Layout(sizes)
        planes = layout.padded(centres, OUTSIDE)
        residuals = layout.padded(tables.values[pixels] - centres, 0)
        centres, pixels = centres[layout.order], pixels[layout.order].astype(np.int64)
        low, high = np.empty_like(centres), np.empty_like(centres)
        for begin in range(0, layout.pixels, CHUNK):
            here = slice(begin, begin + CHUNK)
            places = layout.corners[here], layout.strides[here]
            with one_thread():
                begun = self.network.begin(planes, *places, timestep)
                parameters = self.network.finish(begun, residuals, *places)
            mixture.shares(
                parameters,
                centres[here],
                pixels[here],
                self.network.components,
                *tables.all,
                low[here],
                high[here],
            )
        return low, high, out, count

    def _decode(
        self,
        layout: Layout,
        levels: Bytes,
        snapped: Ints,
        timestep: int,
        code: Bytes,
        complete: bool,
    ) -> int:
        """Fill in levels, [pixels, channels] in reading order; how many values the code tells."""
        channels, tables = self.network.channels, mixture.tables(self.levels)
        centres = _rows(snapped, layout.sizes, channels)
        planes = layout.padded(centres, OUTSIDE)
        residuals = layout.padded(np.zeros_like(centres), 0)
        centres, state, done = centres[layout.order], range_coder.start(code, complete), 0
        for here, begun in self._waves(layout, planes, timestep):
            corners, strides = layout.corners[here], layout.strides[here]
            parameters = self.network.finish(begun, residuals, corners, strides)
            found = levels[layout.order[here]].astype(np.int64)
            count = mixture.decode(
                parameters,
                centres[here],
                found,
                self.network.components,
                *tables.all,
                state,
                code,
                complete,
            )
            levels[layout.order[here]] = found
            done += count
            if count < found.size:
                break
            middles = corners + REACH * (strides + 1)
            residuals[middles] = tables.values[found] - centres[here]
        return done

    def _waves(
        self, layout: Layout, planes: NDArray[np.int16], timestep: int
    ) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
        """Every wave, and what is known of its pixels from the start."""
        ends, first = layout.waves, 0
        while first < len(ends) - 1:
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + CHUNK, "right")) - 1)
            here = slice(ends[first], ends[last])
            begun = self.network.begin(planes, layout.corners[here], layout.strides[here], timestep)
            for i in range(first, last):
                wave = slice(ends[i] - ends[first], ends[i + 1] - ends[first])
                yield slice(ends[i], ends[i + 1]), (begun[0][wave], begun[1][wave])
            first = last

    def _flat(self, xstart: Predicted, sizes: Sizes) -> NDArray[np.float64]:
        """All x^_0, one image after another."""
        shapes = [(self.network.channels, *size) for size in sizes]
        check(
            len(sizes) > 0 and [tuple(x.shape) for x in xstart] == shapes,
            "a last stage needs an x^_0 of the shape of each image",
        )
        found = np.concatenate([x.detach().cpu().double().numpy().reshape(-1) for x in xstart])
        check(bool(np.isfinite(found).all()), "the predicted x_0 is not finite")
        return found


def _sizes(images: Images) -> Sizes:
    """Height and width of each image."""
    return [(int(image.shape[1]), int(image.shape[2])) for image in images]


def _rows(values: NDArray, sizes: Sizes, channels: int) -> NDArray:
    """[pixels, channels] of images that lie one after another, [channels, h, w] each."""
    counts = [channels * height * width for height, width in sizes]
    parts = np.split(values, np.cumsum(counts)[:-1])
    return np.concatenate([part.reshape(channels, -1).T for part in parts])


def _images(rows: NDArray, sizes: Sizes) -> list[Tensor]:
    """The inverse of `_rows`, as tensors."""
    parts = np.split(rows, np.cumsum([height * width for height, width in sizes])[:-1])
    return [
        torch.from_numpy(np.ascontiguousarray(part.T)).reshape(-1, *size)
        for part, size in zip(parts, sizes, strict=True)
    ]
