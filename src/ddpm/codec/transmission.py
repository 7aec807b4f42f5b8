"""Algorithms 3 and 4 for real: every x_{t-1} sent by channel simulation, then the exact pixels.

A part of a file (`codec.parts`) is one path through all its tiles, because long paths waste least,
and then the last stage of all its blocks. Sender and receiver walk down the same chain; how many
bits a step has the file says, and all that the last stage computes with are integers, so that
another machine's last digits change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.model import CodecModel
from ddpm.codec.prices import SENT, Forecast
from ddpm.codec.route import Route
from ddpm.codec.tiles import Size, cut, grid, join
from ddpm.codec.tree_code import Tree, TreeCode
from ddpm.diffusion.gaussian import PMeanVariance
from ddpm.errors import check
from ddpm.runtime.progress import Counter
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.sampling import Ancestral, Ddim

BATCH = 64  # tiles of 32x32 pixels in one network call
TREE = TreeCode(segment=2000)
MAX_RATE = 4  # bits a step may spend on each dimension
LIKELY_STEPS, AVERAGED = 20, 8  # network calls of a completion; completions that are averaged
Reconstruct = Literal["mean", "sample", "average"]
Blocks = list[UInt8[Tensor, "c _h _w"]]


@dataclass
class Spent:
    """Where the bits of a file went, for reports.

    Args:
        kl, path, side: of each step of each part, from the first: KL(q || p), path bits, and their
            count's.
        delivered: what the path of each step told the receiver, see `delivered`.
        pixels: of the last stage, the rounding of the predicted x_0 included.
    """

    kl: list[float] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    pixels: int = 0


class Walk:
    """What both sides of the transmission of a part know.

    Args:
        model: the network and its images.
        route: the timesteps, and what each step should take.
        sizes: (height, width) of every block.
        counter: counts the tiles of every network call.
    """

    def __init__(
        self, model: CodecModel, route: Route, sizes: Sequence[Size], counter: Counter
    ) -> None:
        self.model, self.route, self.sizes, self.counter = model, route, list(sizes), counter
        self.chain = model.chain(route.timesteps[::-1])
        tiles = sum(math.prod(grid(size, model.format.shape)) for size in sizes)
        index = torch.arange(tiles, device=model.device)
        self.start = Randomness(0, "codec").normal(index, model.format.shape)

    def batches(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        """The tiles of each network call: BATCH of them, fewer if they are larger than 32x32."""
        return x.split(self.model.format.batch(BATCH))

    def predict(self, x: Float[Tensor, "n c h w"], index: int) -> PMeanVariance:
        """The reverse step at `index`, in several network calls if need be."""
        parts = []
        for batch in self.batches(x):
            t = torch.full((len(batch),), index, device=x.device)
            parts.append(self.chain.p_mean_variance(self.model.denoiser, batch, t))
            self.counter.advance(len(batch))
        return PMeanVariance(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def price(self, index: int) -> int:
        """Bits that the path of a step should take, by the measured error."""
        return self.route.expected_bits(self.route.steps - 1 - index, len(self.start))

    def tree(self, index: int, bits: int) -> Tree:
        """The trees of a step."""
        return TREE.grow(self.start.numel(), bits, derive_key(0, "codec step", index))

    def advance(self, p: PMeanVariance, z: np.ndarray) -> Tensor:
        """x_{t-1} from the path's vector."""
        noise = torch.from_numpy(z.reshape(p.mean.shape)).to(p.mean.device)
        return p.mean + self.chain.unrotate(p.variance.sqrt() * noise)

    def blocks(self, tiles: Tensor) -> list[Tensor]:
        """Tiles put together."""
        return join(tiles, self.sizes, self.model.format.shape)

    def pixels(self, xstart: Tensor) -> Blocks:
        """Grey levels of a predicted x_0."""
        return self.blocks(self.model.format.from_unit(xstart).cpu())

    def xstart(self, p: PMeanVariance) -> list[Float[Tensor, "c _h _w"]]:
        """x^_0 of all blocks, before the last stage."""
        return self.blocks(p.pred_xstart.cpu())


def send(walk: Walk, images: Sequence[UInt8[Tensor, "c _h _w"]], spent: Spent) -> bytes:
    """Algorithm 3: the payload of a part.

    Args:
        walk: of both sides.
        images: grey levels of the blocks.
        spent: filled in with where the bits went.
    """
    out = BitWriter()
    tiles, _ = cut(images, walk.model.format.shape)
    x_start = walk.model.format.to_unit(tiles).to(walk.model.device)
    x, forecast = walk.start, Forecast()
    with torch.inference_mode():
        for index in range(walk.chain.num_timesteps - 1, 0, -1):
            p = walk.predict(x, index)
            x = walk.advance(p, _send_step(walk, index, x_start, x, p, forecast, out, spent))
        xstart = walk.xstart(walk.predict(x, 0))
    coding = walk.model.coding
    code = coding.last_stage.encode(images, xstart, walk.route.last, coding.margin)
    spent.pixels += 8 * len(code)
    return out.bytes() + code


def _send_step(
    walk: Walk,
    index: int,
    x_start: Tensor,
    x: Tensor,
    p: PMeanVariance,
    forecast: Forecast,
    out: BitWriter,
    spent: Spent,
) -> np.ndarray:
    """Write one step: how many bits, and the path; the vector that the path stands for."""
    t = torch.full((len(x),), index, device=x.device)
    mean, variance, _ = walk.chain.q_posterior_mean_variance(x_start, x, t)
    target = (walk.chain.rotate(mean - p.mean) / p.variance.sqrt()).cpu().numpy().reshape(-1)
    ratio = (variance / p.variance).expand(p.mean.shape).cpu().numpy().reshape(-1)
    nats = 0.5 * (target**2 + ratio - 1 - np.log(ratio)).astype(np.float64).sum()
    kl = nats / math.log(2)
    price = walk.price(index)
    expected, unit = forecast.bits(price), forecast.quantum(price)
    wanted = max(round((SENT * kl - expected) / unit), -(expected // unit))
    change = (min(expected + wanted * unit, MAX_RATE * len(target)) - expected) // unit
    count = expected + change * unit
    forecast.learn(price, count)
    tree = walk.tree(index, count)
    spent.side.append(out.signed_gamma(change))
    path = tree.search(target, ratio)
    out.integers(path, tree.bits)
    z = tree.vector(path)
    spent.kl.append(kl)
    spent.path.append(count)
    spent.delivered.append(delivered(z, target, ratio))
    return z


def delivered(z: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> float:
    """Bits that a received vector tells of its target: log2 q(z) / p(z), which a sample of q has
    KL(q || p) of on average.
    """
    ratio = -0.5 * ((z - mean) ** 2 / variance + np.log(variance)) + 0.5 * z**2
    return float(ratio.astype(np.float64).sum() / math.log(2))


@dataclass(frozen=True)
class Received:
    """What the payload of a part, whole or not, says.

    Args:
        blocks: the pixels: exact where they arrived, else the best guess.
        steps: how many of the K steps arrived; the exact pixels are the last of them.
    """

    blocks: Blocks
    steps: int


def receive(
    walk: Walk,
    payload: bytes,
    lengths: Sequence[int],
    complete: int,
    reconstruct: Reconstruct = "mean",
) -> list[Received]:
    """Algorithm 4: the blocks, from as much of the payload as there is, and from less of it.

    Args:
        walk: of both sides.
        payload: what arrived of the part.
        lengths: of its beginnings, in bytes, rising; each is decoded as if no more had arrived.
        complete: bytes of the whole part.
        reconstruct: what is made of a path that is not all there: the predicted x_0, which errs
            least for one call of the network; a DDIM run to the end, which looks real; or the mean
            of several ancestral runs.

    Raises:
        DdpmError: the payload is damaged.
    """
    bits, found = BitReader(payload), list[Received]()
    last = walk.chain.num_timesteps - 1
    x, forecast = walk.start, Forecast()
    with torch.inference_mode():
        for index in range(last, 0, -1):
            try:
                tree, path = _receive_step(walk, index, forecast, bits)
                end = bits.position
            except EndOfData:
                end = 8 * len(payload) + 1
            p = walk.predict(x, index)
            short = sum(8 * length < end for length in lengths[len(found) :])
            if short:
                blocks = _guess(walk, p, x, index, reconstruct)
                found += [Received(blocks, last - index)] * short
            if len(found) == len(lengths):
                return found
            x = walk.advance(p, tree.vector(path))
        p = walk.predict(x, 0)
    xstart, stage = walk.xstart(p), walk.model.coding.last_stage
    begin, guess = -(-bits.position // 8), Blocks()
    for length in lengths[len(found) :]:
        whole = length == complete
        code = payload[begin:length]
        images, known = stage.decode(code, walk.sizes, xstart, walk.route.last, whole)
        if reconstruct != "mean" and not whole:
            guess = guess or _guess(walk, p, x, 0, reconstruct)
            images = [torch.where(*parts) for parts in zip(known, images, guess, strict=True)]
        found.append(Received(images, last + whole))
    return found


def _receive_step(
    walk: Walk, index: int, forecast: Forecast, bits: BitReader
) -> tuple[Tree, np.ndarray]:
    """The trees of one step and the path through them; `EndOfData` if it is not all there."""
    price = walk.price(index)
    count = forecast.bits(price) + bits.signed_gamma() * forecast.quantum(price)
    check(
        0 <= count <= MAX_RATE * walk.start.numel(),
        "the payload of the file is damaged; fetch it again",
    )
    forecast.learn(price, count)
    tree = walk.tree(index, count)
    return tree, bits.integers(tree.bits)


@torch.inference_mode()
def _guess(walk: Walk, p: PMeanVariance, x: Tensor, index: int, reconstruct: Reconstruct) -> Blocks:
    """The blocks of a path that arrived down to `index` only."""
    if reconstruct == "mean":
        return walk.pixels(p.pred_xstart)
    t = int(walk.chain.schedule.timesteps[index])
    roots = np.linspace(0, math.sqrt(t), min(LIKELY_STEPS, t + 1))
    chain = walk.model.diffusion.respace(np.unique((roots**2).round().astype(np.int64)))
    runs = 1 if reconstruct == "sample" else AVERAGED
    sampler = Ddim() if reconstruct == "sample" else Ancestral()
    total = torch.zeros_like(x)
    for run in range(runs):
        source = Randomness(run, "codec completion")
        for places in torch.arange(len(x), device=x.device).split(walk.model.format.batch(BATCH)):
            noise = partial(source.normal, places, walk.model.format.shape)
            total[places] += sampler(chain, walk.model.denoiser, x[places], noise)
    return walk.pixels(total / runs)
