"""A second decoder of the codec's files, by docs/file-format.md: slow, in the page's words, with
nothing of the package but the network's forward pass.
"""

import hashlib
import json
import math
import zlib

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.fft import idctn
from scipy.special import ndtri

READ = ("codec.", "denoising_error.", "diffusion.")
ALL = (1 << 64) - 1
TOTAL, ONE = 1 << 24, 1 << 30


def decode(data, file, denoiser):
    """The images of a whole file, [c, h, w] each, and whether every check agrees.

    Args:
        data: bytes of the file.
        file: of the model.
        denoiser: (x_t float32 [n, c, h, w], t) to what the network predicts.
    """
    model = Model(file, denoiser)
    head = Header(data, model)
    images = [np.full((model.shape[0], h, w), -1) for h, w in head.sizes]
    parts, agree, at = parts_of(head.sizes, model.shape), True, head.end
    for (check, size), blocks in zip(head.parts, parts, strict=True):
        pixels = decode_part(data[at : at + size], blocks, head.route, model)
        for (i, y, x, h, w), piece in zip(blocks, pixels, strict=True):
            images[i][:, y : y + h, x : x + w] = piece
        written = b"".join(piece.astype(np.uint8).tobytes() for piece in pixels)
        agree &= zlib.crc32(written) & 0xFFFFFF == check
        at += size
    return images, agree


# -- the model and the header ----------------------------------------------------------------------


class Model:
    """What the page says is read of a model's file."""

    def __init__(self, file, denoiser):
        with safe_open(file, "torch") as opened:
            about = json.loads(opened.metadata()["ddpm"])
        read = {k: v for k, v in load_file(file).items() if k.startswith(READ)}
        tensors = {k: (v.double() if v.is_floating_point() else v).numpy() for k, v in read.items()}
        images, diffusion = about["images"], about["config"]["diffusion"]
        self.shape = images["channels"], images["height"], images["width"]
        self.levels, self.denoiser = images["levels"], denoiser
        self.prediction, self.clip = diffusion["prediction_type"], diffusion["clip_sample"]
        self.abar = np.cumprod(1 - tensors["diffusion.betas"])
        self.spectral = bool(tensors["codec.spectral"])
        prefix = "denoising_error." + "spectral." * self.spectral
        self.times = tensors[f"{prefix}timesteps"]
        self.errors = np.log(tensors[f"{prefix}xstart_mse"])
        self.colours = tensors.get("denoising_error.spectral.colours")
        self.route = route_of(tensors["codec.route"].tolist())
        stage = {
            k.removeprefix("codec.last_stage."): v
            for k, v in tensors.items()
            if k.startswith("codec.last_stage.")
        }
        self.cell, self.run = stage["shape"][1:3].tolist()
        self.components, self.knots = int(stage["shape"][4]), stage["knots"].tolist()
        self.bits = stage["bits"].tolist()
        self.layers = [
            (stage[f"{i}.weight"].astype(float), stage[f"{i}.bias"].astype(float))
            for i in range(len(self.bits))
        ]

    def xstart(self, x, t):
        """The predicted x_0."""
        with torch.no_grad():
            times = torch.full((len(x),), t)
            out = self.denoiser(torch.tensor(x, dtype=torch.float32), times).double().numpy()
        signal, noise = math.sqrt(self.abar[t]), math.sqrt(1 - self.abar[t])
        found = {
            "epsilon": lambda: (x - noise * out) / signal,
            "v": lambda: signal * x - noise * out,
        }[self.prediction.removesuffix("_prediction")]()
        return np.clip(found, -1, 1) if self.clip else found

    def error(self, t):
        """The measured mean squares at a timestep."""
        j = min(int(np.searchsorted(self.times, t, side="right")) - 1, len(self.times) - 2)
        share = (t - self.times[j]) / (self.times[j + 1] - self.times[j])
        return np.exp((1 - share) * self.errors[j] + share * self.errors[j + 1])


def route_of(numbers):
    """Timesteps and prices from T - 1 and pairs of a fall and a price."""
    return np.cumsum([numbers[0], *(-fall for fall in numbers[1::2])]).tolist(), numbers[2::2]


class Header:
    """Sizes, route, parts and where the payload begins."""

    def __init__(self, data, model):
        assert data[0] == 0xDD
        self.data, self.end, self.route = data, 3, model.route
        if data[1] & 15 == 2:
            self.sizes, self.parts = [model.shape[1:]], [self.part()]
            return
        assert data[1] & 15 == 3
        self.end = 5
        flags, count = self.varint(), self.varint()
        assert flags < 16, "stored files are plain zlib"
        sizes = [(self.varint(), self.varint()) for _ in range((0, 1, count)[self.listed(flags)])]
        self.sizes = sizes if len(sizes) == count else (sizes or [model.shape[1:]]) * count
        if flags & 8:
            self.route = route_of([self.varint() for _ in range(2 * self.varint() - 1)])
        if flags & 1:
            size = self.varint()
            self.names = zlib.decompress(data[self.end : self.end + size]).decode().split("\0")
            self.end += size
        self.parts = [self.part() for _ in range(self.varint())]
        check = int.from_bytes(data[self.end : self.end + 2], "little")
        assert zlib.crc32(data[: self.end]) & 0xFFFF == check
        self.end += 2

    @staticmethod
    def listed(flags):
        """0 for no sizes, 1 for one, 2 for all."""
        return 1 if flags & 4 else 2 if flags & 2 else 0

    def varint(self):
        """Seven bits a byte, lowest first."""
        value = shift = 0
        while True:
            byte = self.data[self.end]
            self.end += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def part(self):
        """The check and the bytes of a part."""
        check = int.from_bytes(self.data[self.end : self.end + 3], "little")
        self.end += 3
        return check, self.varint()


def parts_of(sizes, shape):
    """Lists of blocks (image, y, x, height, width)."""
    _, high, wide = shape
    tall, broad = (max(1, 1024 // side) * side for side in (high, wide))
    most = max(1, 512 // high) * max(1, 512 // wide)
    parts, room = [], -1
    for image, (height, width) in enumerate(sizes):
        for y in range(0, height, tall):
            for x in range(0, width, broad):
                block = image, y, x, min(tall, height - y), min(broad, width - x)
                tiles = math.prod(grid(block, shape))
                if tiles > room:
                    parts.append([])
                    room = most
                room -= tiles
                parts[-1].append(block)
    return parts


def grid(block, shape):
    """Rows and columns of tiles."""
    return -(-block[3] // shape[1]), -(-block[4] // shape[2])


# -- the path --------------------------------------------------------------------------------------


def derive(seed, purpose, *numbers):
    """64 bits from a text."""
    text = "/".join(map(str, (purpose, seed, *numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def philox(count, tile, key):
    """[count, 4] outputs for the counters (j, 0, tile, 0)."""
    low = np.uint64(0xFFFFFFFF)
    a, b = np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)
    c, d = np.full(count, tile, np.uint64), np.zeros(count, np.uint64)
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            second >> np.uint64(32) ^ b ^ np.uint64(keys[0]),
            second & low,
            first >> np.uint64(32) ^ d ^ np.uint64(keys[1]),
            first & low,
        )
        keys = [(k + w) & 0xFFFFFFFF for k, w in zip(keys, (0x9E3779B9, 0xBB67AE85), strict=True)]
    return np.stack([a, b, c, d], axis=1).astype(np.int64)


def words(count, key):
    """Words of a key in order."""
    return philox(-(-count // 4), 0, key).reshape(-1)[:count]


def beginning(tiles, count):
    """[tiles, count] normal numbers."""
    half = -(-count // 2)
    found = []
    for tile in range(tiles):
        listed = philox(-(-2 * half // 4), tile, derive(0, "codec")).T.reshape(-1)[: 2 * half]
        u = ((listed >> 8) + 0.5) / 2**24
        radius, angle = np.sqrt(-2 * np.log(u[:half])), 2 * np.pi * u[half:]
        found.append(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count])
    return np.stack(found)


class Bits:
    """Bits from the highest of each byte."""

    def __init__(self, data):
        self.bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self.at = 0

    def read(self, count):
        """An integer of so many bits."""
        self.at += count
        return int("0" + "".join(map(str, self.bits[self.at - count : self.at])), 2)

    def unary(self, value):
        """How many bits of that value come before one of the other."""
        count = 0
        while self.read(1) == value:
            count += 1
        return count

    def gamma(self):
        """Elias's."""
        zeros = self.unary(0)
        return 1 << zeros | self.read(zeros)


def vector(bits, count, step, d):
    """The d values of a path of so many bits."""
    key = derive(0, "codec step", step)
    own = words(d, key)
    order, sign = np.argsort(own >> 1, kind="stable"), np.where(own & 1, 1, -1)
    table = np.round(ndtri((words(65536, derive(0, "codebook")) + 0.5) / 2**32) * 4096)
    branches = max(1, -(-count // 4))
    segments = min(branches, max(1, round(count / 2000)))
    begins = {i * branches // segments: [i] * (i > 0) for i in range(segments)}
    out = np.zeros(d)
    for j in range(branches):
        if j in begins:
            state = derive(0, "tree", key, *begins[j])
        child = bits.read(min(4, count - 4 * j))
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & ALL
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & ALL
        state = (mixed ^ mixed >> 31) * (2 * child + 1) * 0x9E3779B97F4A7C15 & ALL | 1
        first, last = 4 * j * d // max(count, 1), 4 * (j + 1) * d // max(count, 1)
        mine = order[first : d if j == branches - 1 else last]
        rows = ((state >> 52) + 1531 * np.arange(-(-len(mine) // 16))) % 4096
        out[mine] = table.reshape(4096, 16)[rows].reshape(-1)[: len(mine)]
    return out * sign / 4096


def decode_part(payload, blocks, route, model):
    """The pixels of all blocks of a part."""
    tiles = sum(math.prod(grid(block, model.shape)) for block in blocks)
    x = beginning(tiles, math.prod(model.shape)).reshape(tiles, *model.shape)
    bits, ratio, (times, prices) = Bits(payload), 4096, route
    for step, (t, s, price) in enumerate(zip(times[:-1], times[1:], prices, strict=True)):
        p = price * tiles // 16
        e = p * ratio // 4096
        number = bits.gamma() - 1
        m = (number + 1) // 2 if number % 2 else -(number // 2)
        count = e + m * max(1, e // 8)
        z = vector(bits, count, len(times) - 1 - step, x.size).reshape(x.shape)
        ratio = (ratio + min(4096 * count // p, 1 << 20)) // 2 if p else ratio
        x = reverse(model, x, z, t, s)
    xstart = joined(model.xstart(x, times[-1]), blocks, model.shape)
    bits.at = -(-bits.at // 8) * 8
    snapped = snap(np.concatenate([piece.reshape(-1) for piece in xstart]), bits, model)
    edges = np.cumsum([piece.size for piece in xstart])[:-1]
    centres = [
        flat.reshape(piece.shape)
        for flat, piece in zip(np.split(snapped, edges), xstart, strict=True)
    ]
    return Exact(model, centres, times[-1], payload[-(-bits.at // 8) :]).decode()


def reverse(model, x, z, t, s):
    """x_s from x_t and the path's vector."""
    at, below = model.abar[t], model.abar[s]
    alpha = at / below
    factor = math.sqrt(below) * (1 - alpha) / (1 - at)
    variance = (1 - alpha) * (1 - below) / (1 - at) + factor**2 * model.error(t)
    noise = np.sqrt(variance) * z
    if model.spectral:
        noise = idctn(noise, axes=(2, 3), norm="ortho")
        noise = np.einsum("kc,nkhw->nchw", model.colours, noise)
    return factor * model.xstart(x, t) + math.sqrt(alpha) * (1 - below) / (1 - at) * x + noise


def joined(tiles, blocks, shape):
    """Tiles put together to blocks."""
    found, at = [], 0
    for block in blocks:
        rows, columns = grid(block, shape)
        mine = tiles[at : at + rows * columns].reshape(rows, columns, *shape)
        at += rows * columns
        whole = mine.transpose(2, 0, 3, 1, 4).reshape(shape[0], rows * shape[1], -1)
        found.append(whole[:, : block[3], : block[4]])
    return found


# -- the exact pixels ------------------------------------------------------------------------------


def snap(xstart, bits, model):
    """The middle of each number's cell, in eighths of a byte."""
    assert (model.cell, model.run) == (4, 256), "what the page describes"
    values = np.clip(127.5 * (xstart + 1), 0, 255)
    runs = [values[i : i + 256] for i in range(0, len(values), 256)]
    lowest = [bits.read(1) if len(run) >= 192 else None for run in runs]
    found = []
    for run, low in zip(runs, lowest, strict=True):
        number = bits.unary(1)
        number = number if low is None else 2 * number + low
        middle = (159 * number % 256) / 64
        found.append(middle + 4 * np.floor((run - middle + 2) / 4))
    return np.floor(8 * np.concatenate(found)).astype(np.int64)


class Exact:
    """The last stage of a part."""

    def __init__(self, model, centres, t, code):
        self.model, self.centres, self.code, self.at = model, centres, code, 0
        knots, self.time = model.knots, np.zeros(len(model.knots), np.int64)
        right = int(np.searchsorted(knots, t))
        if right in (0, len(knots)):
            self.time[min(right, len(knots) - 1)] = 128
        else:
            low, high = knots[right - 1 : right + 1]
            self.time[right] = 128 * (t - low) // (high - low)
            self.time[right - 1] = 128 - self.time[right]
        self.sigmoid = np.rint(ONE / (1 + np.exp(-np.arange(16384) / 1024))).astype(np.int64)
        self.exp = np.rint(2**28 * np.exp(-np.arange(4864) / 256)).astype(np.int64)
        self.inverse = np.rint(2**22 * np.exp(3.5 - np.arange(625) / 64)).astype(np.int64)
        level, top = np.arange(model.levels), model.levels - 1
        self.edges = np.floor((2 * level[:-1] + 1) * 65280 / (2 * top) + 0.5).astype(np.int64)
        self.values = np.floor(2040 * level / top + 0.5).astype(np.int64)
        self.width, self.number = 1, 0
        self.fill(1 << 56)

    def fill(self, least):
        """Bytes from the file, then zeros."""
        while self.width < least:
            byte = self.code[self.at] if self.at < len(self.code) else 0
            self.width, self.number, self.at = self.width << 8, self.number << 8 | byte, self.at + 1

    def decode(self):
        """Levels of all blocks."""
        planes = []
        for centre in self.centres:
            c, h, w = centre.shape
            around, exists = np.zeros((h + 6, w + 6, c), np.int64), np.zeros((h + 6, w + 6), bool)
            around[3:-3, 3:-3], exists[3:-3, 3:-3] = centre.transpose(1, 2, 0), True
            planes.append((around, exists, np.zeros_like(around), np.full(centre.shape, -1)))
        waves = {}
        for block, centre in enumerate(self.centres):
            for y in range(centre.shape[1]):
                for x in range(centre.shape[2]):
                    waves.setdefault(x + 4 * y, []).append((block, y, x))
        for wave in sorted(waves):
            features = [self.features(*planes[block][:3], y, x) for block, y, x in waves[wave]]
            for (block, y, x), *rest in zip(
                waves[wave], *self.parameters(np.array(features)), strict=True
            ):
                around, _, residuals, out = planes[block]
                out[:, y, x] = self.pixel(around[y + 3, x + 3], *rest)
                residuals[y + 3, x + 3] = self.values[out[:, y, x]] - around[y + 3, x + 3]
        return [plane[3] for plane in planes]

    def features(self, around, exists, residuals, y, x):
        """Of a pixel."""
        there, own = exists[y : y + 7, x : x + 7], around[y + 3, x + 3]
        seen = np.where(there[:, :, None], around[y : y + 7, x : x + 7] - own, 0)
        seen[3, 3] = own - 1020
        past = [residuals[y : y + 3, x : x + 7], residuals[y + 3, x : x + 3]]
        parts = [seen, 128 * there, self.time, *past]
        return np.clip(np.concatenate([part.reshape(-1) for part in parts]), -4095, 4095)

    def parameters(self, features):
        """Logits, means, scales and slopes."""
        c, k, bits = self.model.shape[0], self.model.components, self.model.bits
        (weight, bias), *layers = self.model.layers
        added = np.floor((features @ weight + bias) / 2.0 ** (7 + bits[0] - 12))
        added = np.clip(added, -(1 << 17), 1 << 17)
        x, shift = features, 7 + bits[1] - 12
        for (w, b), after in zip(layers, [*bits[2:], None], strict=True):
            x = x @ w + b
            if after is not None:
                x, shift = np.clip(np.floor(x / 2.0**shift), 0, 1 << 20), after
        x = x / 2.0 ** (12 + bits[-1])
        logits, means, scales, slopes = np.split(x, [k, (1 + c) * k, (1 + 2 * c) * k], axis=1)
        logits = np.clip(np.floor(256 * logits), -(1 << 20), 1 << 20)
        means = np.clip(np.floor(4096 * means), -(1 << 17), 1 << 17).reshape(-1, c, k)
        scales = np.clip(np.floor(64 * scales) + 224, 0, 624).reshape(-1, c, k)
        slopes = np.clip(np.floor(4096 * slopes), -(1 << 15), 1 << 15).reshape(len(x), -1, k)
        found = logits, means + added[:, :, None], scales, slopes
        return [part.astype(np.int64) for part in found]

    def pixel(self, centre, logits, means, scales, slopes):
        """The levels of a pixel's channels."""
        behind = logits.max() - logits
        weights = np.where(behind < 4864, self.exp[np.minimum(behind, 4863)], 0)
        levels, known, pairs = [], [], iter(slopes)
        for c in range(len(centre)):
            mean = means[c] + sum((next(pairs) * 32 * r) >> 12 for r in known)
            mean = np.clip(mean, -(1 << 17), 1 << 17) + 32 * centre[c]
            place = (self.edges[:, None] - mean) * self.inverse[scales[c]] + (1 << 19) >> 20
            share = self.sigmoid[np.minimum(np.abs(place), 16383)]
            share = np.where(np.abs(place) > 16383, ONE, share)
            share = np.where(place < 0, ONE - share, share)
            share = np.vstack([0 * weights, share, 0 * weights + ONE])
            mixed = (weights * share).sum(1) // weights.sum()
            below = np.arange(len(mixed)) + ((TOTAL - self.model.levels) * mixed >> 30)
            unit = self.width >> 24
            target = min(self.number // unit, TOTAL - 1)
            level = int(np.searchsorted(below, target, side="right")) - 1
            self.number -= unit * int(below[level])
            self.width = unit * int(below[level + 1] - below[level])
            self.fill(1 << 48)
            levels.append(level)
            known.append(int(self.values[level] - centre[c]))
            weights = weights * (share[level + 1] - share[level] + 1)
            while weights.max() >> 28:
                weights >>= 1
        return levels
