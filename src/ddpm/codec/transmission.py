"""Algorithms 3 and 4 for real: every x_{t-1} sent by channel simulation, then the exact pixels.

One path of the tree runs through all images of a file, because long paths waste least. Sender and
receiver walk down the same chain; the receiver needs nothing but the bits of each path and how
many there are, which the file says, so that a last digit of difference between two machines can
never put them out of step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ddpm.codec.bits import BitReader, BitWriter, EndOfData
from ddpm.codec.exact_pixels import SCALE_BITS, PixelModel, best_scale
from ddpm.codec.tree_code import TreeCode
from ddpm.data.images import from_unit_range, to_unit_range
from ddpm.diffusion.gaussian import Denoiser, GaussianDiffusion, PMeanVariance
from ddpm.errors import check
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.sampling.ddim import ddim

RATE = 1.08  # bits sent for each bit of KL: what the search loses
BATCH = 64  # images in one network call; both sides must use the same
MAX_RATE = 4  # bits a step may spend on each dimension
TREE = TreeCode()
Progress = Callable[[int], None]


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
        diffusion: a chain of K steps with the analytic variance.
        denoiser: the network.
        real: which pixels of each tile count, [n, h, w].
        channels: of the tiles.
        device: where the network is.
        progress: called with the number of tiles after every network call.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        denoiser: Denoiser,
        real: Bool[Tensor, "n h w"],
        channels: int,
        grey_levels: int,
        device: torch.device,
        progress: Progress | None = None,
    ) -> None:
        self.diffusion, self.denoiser, self.grey_levels = diffusion, denoiser, grey_levels
        self.device, self.progress = device, progress
        self.real = real[:, None].expand(-1, channels, -1, -1)
        n, height, width = real.shape
        index = torch.arange(n, device=device)
        self.start = Randomness(0, "codec").normal(index, (channels, height, width))
        self.flat = self.real.reshape(-1).numpy()

    def predict(self, x: Float[Tensor, "n c h w"], index: int) -> PMeanVariance:
        """The reverse step at `index`, in network calls of BATCH tiles."""
        parts = []
        for batch in x.split(BATCH):
            t = torch.full((len(batch),), index, device=self.device)
            parts.append(self.diffusion.p_mean_variance(self.denoiser, batch, t))
            if self.progress is not None:
                self.progress(len(batch))
        return PMeanVariance(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def mse(self, index: int) -> np.ndarray:
        """[c, h, w] or a scalar, the expected squared error of x_0 at `index`."""
        table = self.diffusion.xstart_mse
        assert table is not None
        return table[self.diffusion.schedule.timesteps[index]]

    def expected_bits(self, index: int) -> int:
        """What the path of a step should take, by the tables (see `ddpm.likelihood.trajectory`)."""
        schedule = self.diffusion.schedule
        gain = schedule.posterior_mean_coef1[index] ** 2 / schedule.posterior_variance[index]
        price = 0.5 * np.log2(1 + gain * np.broadcast_to(self.mse(index), self.real.shape[1:]))
        counts = self.real.sum(dim=0).numpy()
        return round(RATE * float((price * counts).sum()))

    def advance(self, p: PMeanVariance, z: np.ndarray) -> Tensor:
        """x_{t-1} from the path's vector."""
        noise = torch.from_numpy(z.reshape(p.mean.shape)).to(self.device)
        return p.mean + p.variance.sqrt() * noise

    def pixel_statistics(self, p: PMeanVariance) -> tuple[np.ndarray, np.ndarray]:
        """x^_0 and its expected squared error at the real pixels, before the last stage."""
        xstart = p.pred_xstart.double().cpu().numpy().reshape(-1)[self.flat]
        mse = np.broadcast_to(self.mse(0), p.mean.shape).reshape(-1)[self.flat]
        return xstart, mse

    def pixel_model(self, p: PMeanVariance, scale: int) -> PixelModel:
        """The last stage's distributions of the real pixels."""
        return PixelModel(*self.pixel_statistics(p), self.grey_levels, scale)

    def noiseless(self, index: int) -> Tensor:
        """The noise source of a deterministic sampler."""
        raise AssertionError("a deterministic sampler asked for noise")

    def pixels(self, xstart: Tensor) -> UInt8[Tensor, "n c h w"]:
        """Grey levels of a predicted x_0."""
        return from_unit_range(xstart, self.grey_levels).cpu()


def step_key(index: int) -> int:
    """Decides the tree of a step."""
    return derive_key(0, "codec step", index)


def grain(expected: int) -> int:
    """The multiple in which the count of a step's bits differs from the expected one."""
    return max(1, math.isqrt(expected) // 2)


def send(walk: Walk, tiles: UInt8[Tensor, "n c h w"], spent: Spent | None = None) -> bytes:
    """Algorithm 3: the payload for these tiles."""
    out, spent = BitWriter(), spent or Spent()
    x_start = to_unit_range(tiles, walk.grey_levels).to(walk.device)
    x = walk.start
    with torch.inference_mode():
        for index in range(walk.diffusion.num_timesteps - 1, 0, -1):
            p = walk.predict(x, index)
            t = torch.full((len(x),), index, device=walk.device)
            mean, variance, _ = walk.diffusion.q_posterior_mean_variance(x_start, x, t)
            target = ((mean - p.mean) / p.variance.sqrt()).cpu().numpy().reshape(-1)
            ratio = (variance / p.variance).expand(p.mean.shape).cpu().numpy().reshape(-1)
            target = np.where(walk.flat, target, np.float32(0))
            ratio = np.where(walk.flat, ratio, np.float32(1))
            nats = 0.5 * (target**2 + ratio - 1 - np.log(ratio)).astype(np.float64).sum()
            kl = nats / math.log(2)
            expected = walk.expected_bits(index)
            unit = grain(expected)
            change = max(round((RATE * kl - expected) / unit), -(expected // unit))
            bits = min(expected + change * unit, MAX_RATE * len(target))
            change = (bits - expected) // unit
            bits = expected + change * unit
            side = out.gamma(2 * change - 1 if change > 0 else -2 * change)
            path = TREE.encode(target, ratio, bits, step_key(index))
            out.integers(path, TREE.layout(len(target), bits, step_key(index)).bits)
            z = TREE.decode(path, len(target), bits, step_key(index))
            x = walk.advance(p, z)
            spent.kl.append(kl)
            spent.path.append(bits)
            spent.side.append(side)
            spent.delivered.append(delivered(z, target, ratio))
        p = walk.predict(x, 0)
        values = tiles.reshape(-1).numpy()[walk.flat].astype(np.int32)
        scale = best_scale(walk.grey_levels, values, *walk.pixel_statistics(p))
        out.integers(np.array([scale]), np.array([SCALE_BITS]))
        code = walk.pixel_model(p, scale).encode(values)
    spent.pixels = 8 * len(code)
    return out.bytes() + code


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
        tiles: the pixels: exact where the payload is whole, else the best guess.
        steps: how many steps of the chain arrived.
    """

    tiles: UInt8[Tensor, "n c h w"]
    steps: int


def receive(walk: Walk, payload: bytes, whole: bool, sample: bool = False) -> Received:
    """Algorithm 4: the tiles, from as much of the payload as there is.

    Args:
        whole: nothing of the payload is missing.
        sample: complete a partial payload by DDIM, which looks real, instead of by the predicted
            x_0, which errs least.
    """
    bits = BitReader(payload)
    x, index = walk.start, walk.diffusion.num_timesteps - 1
    d = math.prod(x.shape)
    scale = None
    with torch.inference_mode():
        try:
            for index in range(walk.diffusion.num_timesteps - 1, 0, -1):
                unit = grain(expected := walk.expected_bits(index))
                sign = bits.gamma()
                change = (sign + 1) // 2 if sign % 2 else -sign // 2
                count = expected + change * unit
                check(
                    0 <= count <= max(MAX_RATE * d, expected),
                    "the payload of the file is damaged; fetch it again",
                )
                path = bits.integers(TREE.layout(d, count, step_key(index)).bits)
                p = walk.predict(x, index)
                x = walk.advance(p, TREE.decode(path, d, count, step_key(index)))
            index = 0
            scale = int(bits.integers(np.array([SCALE_BITS]))[0])
        except EndOfData:
            pass
        steps = walk.diffusion.num_timesteps - 1 - index
        p = walk.predict(x, index)
        guess = walk.pixels(p.pred_xstart)
        if scale is None:
            if sample:
                batches = [
                    ddim(walk.diffusion, walk.denoiser, batch, walk.noiseless, start=index)
                    for batch in x.split(BATCH)
                ]
                guess = walk.pixels(torch.cat(batches))
            return Received(guess, steps)
        model = walk.pixel_model(p, scale)
        code = bits.remaining_bytes()
        values = model.decode(code)
        if not whole:  # what the missing bytes cannot change any more is already exact
            other = model.decode(code, b"\xff")
            values = values[: len(other)]
            differs = values != other[: len(values)]
            values = values[: int(differs.argmax()) if differs.any() else len(values)]
        flat = guess.reshape(-1).numpy()
        flat[np.flatnonzero(walk.flat)[: len(values)]] = values.astype(np.uint8)
        return Received(torch.from_numpy(flat).reshape(guess.shape), steps)
