"""Algorithms 3 and 4 for real: every x_{t-1} sent by channel simulation, then the exact pixels.

One path of the tree runs through all images of a file, because long paths waste least. Sender and
receiver walk down the same chain; the receiver needs nothing but the bits of each path and how
many there are, which the file says, so that a last digit of difference between two machines can
never put them out of step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.exact_pixels import SCALE_BITS, PixelModel, best_scale
from ddpm.codec.model import CodecModel
from ddpm.codec.tree_code import Tree, TreeCode
from ddpm.diffusion.gaussian import PMeanVariance
from ddpm.errors import check
from ddpm.likelihood.trajectory import step_bits
from ddpm.runtime.progress import Counter
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.sampling import Ddim

RATE = 1.08  # bits that a step is expected to take for each bit of its expected KL: the format's
SENT = 1.15  # that the sender takes, more than the search loses: later steps have less to tell
BATCH = 64  # tiles of 32x32 pixels in one network call; both sides must use the same
MAX_RATE = 4  # bits a step may spend on each dimension
TREE = TreeCode()


@dataclass
class Spent:
    """Where the bits of a file went, for reports.

    Args:
        kl, path, side: of each step, from the first: KL(q || p), path bits, and their count's.
        delivered: what the path of each step told the receiver, see `delivered`.
        pixels: of the last stage.
    """

    kl: list[float] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    pixels: int = 0


class Walk:
    """What both sides of a transmission know: the chain, the price of each step, the start.

    Args:
        model: the network and its images.
        steps: K.
        real: which pixels of each tile count, [n, h, w].
        counter: counts the tiles of every network call.
    """

    def __init__(
        self, model: CodecModel, steps: int, real: Bool[Tensor, "n h w"], counter: Counter
    ) -> None:
        self.model, self.chain, self.counter = model, model.chain(steps), counter
        channels, height, width = model.format.shape
        self.real = real[:, None].expand(-1, channels, -1, -1)
        index = torch.arange(len(real), device=model.device)
        self.start = Randomness(0, "codec").normal(index, (channels, height, width))
        self.flat = self.real.reshape(-1).numpy()

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

    def mse(self, index: int) -> np.ndarray:
        """[c, h, w], the expected squared error of the predicted x_0 at `index`."""
        return self.model.denoising_error.at(self.chain.schedule.timesteps[[index]])[0]

    def expected_bits(self, index: int) -> int:
        """What the path of a step should take, by the measured error."""
        snr = self.chain.schedule.snr
        counts = self.real.sum(dim=0).numpy()
        bits = step_bits(snr[index - 1] - snr[index], self.mse(index))
        return round(RATE * float((bits * counts).sum()))

    def tree(self, index: int, bits: int) -> Tree:
        """The tree of a step."""
        return TREE.grow(self.start.numel(), bits, derive_key(0, "codec step", index))

    def advance(self, p: PMeanVariance, z: np.ndarray) -> Tensor:
        """x_{t-1} from the path's vector."""
        noise = torch.from_numpy(z.reshape(p.mean.shape)).to(p.mean.device)
        return p.mean + p.variance.sqrt() * noise

    def pixel_statistics(self, p: PMeanVariance) -> tuple[np.ndarray, np.ndarray]:
        """x^_0 and its expected squared error at the real pixels, before the last stage."""
        xstart = p.pred_xstart.double().cpu().numpy().reshape(-1)[self.flat]
        mse = np.broadcast_to(self.mse(0), p.mean.shape).reshape(-1)[self.flat]
        return xstart, mse

    def pixels(self, xstart: Tensor) -> UInt8[Tensor, "n c h w"]:
        """Grey levels of a predicted x_0."""
        return self.model.format.from_unit(xstart).cpu()


def quantum(expected: int) -> int:
    """The multiple in which the count of a step's bits differs from the expected one."""
    return max(1, math.isqrt(expected) // 2)


def send(walk: Walk, tiles: UInt8[Tensor, "n c h w"], spent: Spent) -> bytes:
    """Algorithm 3: the payload for these tiles.

    Args:
        walk: of both sides.
        tiles: grey levels of the model's format.
        spent: filled in with where the bits went.
    """
    out = BitWriter()
    x_start = walk.model.format.to_unit(tiles).to(walk.model.device)
    x = walk.start
    with torch.inference_mode():
        for index in range(walk.chain.num_timesteps - 1, 0, -1):
            p = walk.predict(x, index)
            x = walk.advance(p, _send_step(walk, index, x_start, x, p, out, spent))
        p = walk.predict(x, 0)
    values = tiles.reshape(-1).numpy()[walk.flat].astype(np.int32)
    levels, statistics = walk.model.format.levels, walk.pixel_statistics(p)
    scale = best_scale(levels, values, *statistics)
    out.integers(np.array([scale]), np.array([SCALE_BITS]))
    code = PixelModel(*statistics, levels, scale).encode(values)
    spent.pixels = 8 * len(code)
    return out.bytes() + code


def _send_step(
    walk: Walk,
    index: int,
    x_start: Tensor,
    x: Tensor,
    p: PMeanVariance,
    out: BitWriter,
    spent: Spent,
) -> np.ndarray:
    """Write one step: how many bits, and the path; the vector that the path stands for."""
    t = torch.full((len(x),), index, device=x.device)
    mean, variance, _ = walk.chain.q_posterior_mean_variance(x_start, x, t)
    target = ((mean - p.mean) / p.variance.sqrt()).cpu().numpy().reshape(-1)
    ratio = (variance / p.variance).expand(p.mean.shape).cpu().numpy().reshape(-1)
    target = np.where(walk.flat, target, np.float32(0))
    ratio = np.where(walk.flat, ratio, np.float32(1))
    nats = 0.5 * (target**2 + ratio - 1 - np.log(ratio)).astype(np.float64).sum()
    kl = nats / math.log(2)
    expected = walk.expected_bits(index)
    unit = quantum(expected)
    wanted = max(round((SENT * kl - expected) / unit), -(expected // unit))
    change = (min(expected + wanted * unit, MAX_RATE * len(target)) - expected) // unit
    tree = walk.tree(index, expected + change * unit)
    spent.side.append(out.signed_gamma(change))
    path = tree.search(target, ratio)
    out.integers(path, tree.bits)
    z = tree.vector(path)
    spent.kl.append(kl)
    spent.path.append(expected + change * unit)
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
    """What a payload, whole or not, says.

    Args:
        tiles: the pixels: exact where the payload is complete, else the best guess.
        steps: how many of the K steps arrived; the exact pixels are the last of them.
    """

    tiles: UInt8[Tensor, "n c h w"]
    steps: int


def receive(
    walk: Walk, payload: bytes, complete: bool, lengths: Sequence[int], sample: bool = False
) -> list[Received]:
    """Algorithm 4: the tiles, from as much of the payload as there is, and from less of it.

    Args:
        walk: of both sides.
        payload: what arrived.
        complete: nothing of it is missing.
        lengths: of its beginnings, in bytes, rising; each is decoded as if no more had arrived.
        sample: complete a partial payload by DDIM, which looks real, instead of by the predicted
            x_0, which errs least.

    Raises:
        DdpmError: the payload is damaged.
    """
    bits, found = BitReader(payload), list[Received]()
    last = walk.chain.num_timesteps - 1
    x, scale = walk.start, 0
    with torch.inference_mode():
        for index in range(last, -1, -1):
            try:
                if index:
                    tree, path = _receive_step(walk, index, bits)
                else:
                    scale = int(bits.integers(np.array([SCALE_BITS]))[0])
                end = bits.position
            except EndOfData:
                end = 8 * len(payload) + 1
            p = walk.predict(x, index)
            cut = sum(8 * length < end for length in lengths[len(found) :])
            if cut:
                tiles = _likely(walk, x, index) if sample else walk.pixels(p.pred_xstart)
                found += [Received(tiles, last - index)] * cut
            if len(found) == len(lengths):
                return found
            if index:
                x = walk.advance(p, tree.vector(path))
    model = PixelModel(*walk.pixel_statistics(p), walk.model.format.levels, scale)
    for length in lengths[len(found) :]:
        whole = complete and length == len(payload)
        values = _known_pixels(model, payload[-(-end // 8) : length], whole)
        guess = walk.pixels(p.pred_xstart)
        flat = guess.reshape(-1).numpy()
        flat[np.flatnonzero(walk.flat)[: len(values)]] = values.astype(np.uint8)
        found.append(Received(torch.from_numpy(flat).reshape(guess.shape), last + whole))
    return found


def _receive_step(walk: Walk, index: int, bits: BitReader) -> tuple[Tree, np.ndarray]:
    """The tree of one step and the path through it; `EndOfData` if it is not all there."""
    expected = walk.expected_bits(index)
    count = expected + bits.signed_gamma() * quantum(expected)
    check(
        0 <= count <= max(MAX_RATE * walk.start.numel(), expected),
        "the payload of the file is damaged; fetch it again",
    )
    tree = walk.tree(index, count)
    return tree, bits.integers(tree.bits)


def _likely(walk: Walk, x: Tensor, index: int) -> UInt8[Tensor, "n c h w"]:
    """A partial file completed with likely detail: DDIM from x at `index` to the end."""

    def noiseless(step: int) -> Tensor:
        raise AssertionError("a deterministic sampler asked for noise")

    batches = [
        Ddim()(walk.chain, walk.model.denoiser, batch, noiseless, start=index)
        for batch in walk.batches(x)
    ]
    return walk.pixels(torch.cat(batches))


def _known_pixels(model: PixelModel, code: bytes, complete: bool) -> np.ndarray:
    """The pixels of a code; of a cut one, those that the missing bytes cannot change any more."""
    values = model.decode(code)
    if complete:
        return values
    other = model.decode(code, b"\xff")
    values = values[: len(other)]
    differs = values != other[: len(values)]
    return values[: int(differs.argmax()) if differs.any() else len(values)]
