"""Training of the exact last stage, on windows of pixels drawn at random."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm.codec.last_stage import LastStage
from ddpm.codec.muon import Muon
from ddpm.codec.snapping import Grid
from ddpm.codec.window_network import WindowNetwork
from ddpm.codec.window_pool import BATCH, Pool
from ddpm.data.images import ImageFormat, Indexed
from ddpm.errors import check
from ddpm.runtime.atomic import atomically
from ddpm.runtime.progress import Progress

Predict = Callable[[UInt8[Tensor, "b c h w"], int, int], Float[Tensor, "b c h w"]]

SAVE_EVERY = 240  # seconds between two checkpoints


@dataclass(frozen=True)
class Recipe:
    """How a last stage is trained.

    Args:
        width, depth: of the hidden layers, and how many they are.
        components: of the mixture.
        grid: that x^_0 is rounded to.
        windows: in one step.
        lr: learning rate of AdamW, for all but the hidden matrices, after the warm-up; it falls to
            0 along half a cosine.
        muon: that of Muon, for the hidden matrices; None for AdamW there too.
        warmup: steps.
        decay: of the average of the weights.
        pool: images that windows are drawn from at a time, a multiple of BATCH.
        renew: steps after which a batch of them is replaced, with another timestep and noise.
        flip: mirror every second batch.
        bf16: multiply in bfloat16; None where the processor has instructions for it.
    """

    width: int = 160
    depth: int = 3
    components: int = 6
    grid: Grid = field(default_factory=Grid)
    windows: int = 2048
    lr: float = 2e-3
    muon: float | None = 6e-3
    warmup: int = 200
    decay: float = 0.999
    pool: int = 128 * BATCH
    renew: int = 800
    flip: bool = False
    bf16: bool | None = None


def usual_recipe(image_format: ImageFormat) -> Recipe:
    """The usual network; for small grey images, of which there are few, a smaller one that learns
    slowly: with Muon it overfits on the digits.
    """
    if image_format.channels > 1:
        return Recipe()
    if image_format.height * image_format.width > 256:
        return Recipe(width=96)
    return Recipe(32, components=4, windows=1024, muon=None, pool=24 * BATCH, renew=200)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the processor has instructions for bfloat16, as far as PyTorch can tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class Fit:
    """A training that can be stopped and gone on with.

    Args:
        images: to train on, uint8 [n, c, h, w] or anything that is read by index.
        image_format: of them.
        predict: the network's x^_0 on [-1, 1] of some images [b, c, h, w], at a timestep of the
            whole chain, from an x_t whose noise is decided by a number.
        timesteps: rising; the network is trained between the first and the last.
        recipe: sizes and rates.
        seed: decides weights, windows, timesteps and noise.
        device: that computes.
    """

    def __init__(
        self,
        images: Indexed,
        image_format: ImageFormat,
        predict: Predict,
        timesteps: Sequence[int],
        recipe: Recipe,
        seed: int,
        device: torch.device,
    ) -> None:
        self.images, self.format, self.predict = images, image_format, predict
        self.recipe, self.seed, self.step, self.batches = recipe, seed, 0, 0
        self.device, self.elapsed, self.loss = device, 0.0, torch.zeros((), device=device)
        # Drawing a step's windows takes a core as long as the step; a GPU is many times as fast.
        self.drawers = 1 if device.type == "cpu" else max(1, torch.get_num_threads() - 1)
        self.ahead = ThreadPoolExecutor(self.drawers)
        self.drawn: dict[int, Future[tuple[Tensor, Tensor, Tensor]]] = {}
        parts = recipe.components, recipe.width, recipe.depth
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = WindowNetwork(image_format.channels, timesteps, *parts).to(device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.bf16 = multiplies_bf16(device) if recipe.bf16 is None else recipe.bf16
        matrices = [] if recipe.muon is None else self.network.matrices
        rest = [p for p in self.network.parameters() if all(p is not m for m in matrices)]
        self.optimizer = torch.optim.AdamW(rest, recipe.lr, fused=True)
        self.muon = Muon(matrices, torch.bfloat16 if self.bf16 else torch.float32)
        size = min(recipe.pool, -(-len(images) // BATCH) * BATCH)
        self.pool = Pool(image_format, recipe.grid, self.network.knots, size)

    def renew(self) -> None:
        """Another batch of images enters the pool, with a timestep and noise of its own."""
        random, number = np.random.default_rng([self.seed, 1, self.batches]), self.batches
        knots, count = self.network.knots, min(BATCH, self.pool.size)
        each = max(1, len(self.images) // count)
        order = np.random.default_rng([self.seed, 2, number // each]).permutation(len(self.images))
        index = np.resize(order[number % each * count :], count)
        images = self.images[torch.from_numpy(index)].cpu()
        if self.recipe.flip and number % 2:
            images = images.flip(3)
        low, high = np.log([knots[0] + 0.6, knots[-1] + 1.4])
        timestep = round(float(np.exp(random.uniform(low, high)))) - 1
        self.pool.put(number, images, self.predict(images, timestep, number), timestep, self.seed)
        self.batches += 1

    def draw(self, step: int) -> None:
        """Begin to draw the windows of a step, in another thread; the pool must stay as it is."""
        random = np.random.default_rng([self.seed, 0, step])
        self.drawn[step] = self.ahead.submit(self.pool.draw, self.recipe.windows, random)

    def advance(self, done: float) -> None:
        """One step of AdamW, at a share `done` of the training; a new batch, if it is time."""
        recipe = self.recipe
        renewed = self.step - self.step % recipe.renew + recipe.renew
        for step in range(self.step, min(self.step + self.drawers + 1, renewed)):
            if step not in self.drawn:
                self.draw(step)
        drawn = self.drawn.pop(self.step).result()
        features, levels, centres = (x.to(self.device, non_blocking=True) for x in drawn)
        rise = min(1.0, (self.step + 1) / recipe.warmup)
        rate = rise * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        self.optimizer.param_groups[0]["lr"] = recipe.lr * rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found = self.network(features).float()
        loss = self.network.nats(found, levels, centres, self.format.levels).mean()
        self.network.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.muon.step((recipe.muon or 0) * rate)
        self.step += 1
        now = loss.detach() / math.log(2) / self.format.channels
        self.loss = self.loss.lerp(now, 0.02 if self.step > 50 else 1 / self.step)
        with torch.no_grad():
            weight = 1 - min(recipe.decay, self.step / (10 + self.step))
            shadow, current = self.average.parameters(), self.network.parameters()
            torch._foreach_lerp_(list(shadow), list(current), weight)
        if self.step % recipe.renew == 0:
            self.renew()

    def frozen(self) -> LastStage:
        """The averaged network in integers."""
        network = copy.deepcopy(self.average).cpu().frozen()
        return LastStage(self.format.levels, self.recipe.grid, network)

    def save(self, path: Path) -> None:
        """Write all that the rest of the training depends on."""
        tensors = {}
        for name, value in self.network.state_dict().items():
            tensors[f"network.{name}"] = value
        for name, value in self.average.state_dict().items():
            tensors[f"average.{name}"] = value
        for number, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{name}"] = value
        for number, value in enumerate(self.muon.momenta):
            tensors[f"muon.{number}"] = value
        described = {"step": self.step, "batches": self.batches, "elapsed": self.elapsed}
        metadata = {"described": json.dumps({**described, "of": self.described})}
        atomically(path, lambda beside: save_file(tensors, beside, metadata))

    @property
    def described(self) -> dict[str, object]:
        """What a training must have in common with the one that it goes on with."""
        knots = self.network.knots.tolist()
        parts = {"recipe": asdict(self.recipe), "seed": self.seed, "knots": knots}
        return {**parts, "format": asdict(self.format), "images": len(self.images)}

    def load(self, path: Path) -> None:
        """Go on where `save` stopped, with the same pool.

        Raises:
            DdpmError: it is the checkpoint of another training.
        """
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()["described"])
        tensors = load_file(path)
        check(
            described["of"] == self.described,
            f"{path} is the checkpoint of another training; remove it, or name another file",
        )
        self._weights(tensors)
        state = self.optimizer.state_dict()
        found: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                found.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**state, "state": found})
        for number, momentum in enumerate(self.muon.momenta):
            momentum.copy_(tensors[f"muon.{number}"])
        self.step, self.elapsed = described["step"], described["elapsed"]
        self.batches = max(0, described["batches"] - self.pool.size // BATCH)

    def begin_from(self, path: Path) -> None:
        """Begin with the averaged weights of another training's checkpoint, of the same shapes.

        Raises:
            DdpmError: they have other shapes.
        """
        averaged = {k: v for k, v in load_file(path).items() if k.startswith("average.")}
        self._weights(
            averaged | {k.replace("average.", "network."): v for k, v in averaged.items()}
        )

    def _weights(self, tensors: dict[str, Tensor]) -> None:
        """Take over the weights of a checkpoint."""
        for prefix, network in (("network.", self.network), ("average.", self.average)):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            shapes = {name: value.shape for name, value in network.state_dict().items()}
            check(
                shapes == {name: value.shape for name, value in own.items()},
                "this checkpoint holds a last stage of another shape",
            )
            network.load_state_dict(own)


def fit_last_stage(
    images: Indexed,
    image_format: ImageFormat,
    predict: Predict,
    timesteps: Sequence[int],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    begin_from: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LastStage:
    """Train a last stage and freeze it.

    Args:
        images: to train on, uint8 [n, c, h, w], or anything that is read by index.
        image_format: of them.
        predict: x^_0 on [-1, 1] of some images at a timestep; the third argument is a number that
            decides the noise. See `Fit`.
        timesteps: rising, of the whole chain: knots between which the network interpolates.
        steps: of the optimizer; with them, the same seed and device and as many threads, the
            result is the same.
        seconds: instead of steps, how long it may take, the network's calls included.
        recipe: sizes and rates; chosen by the format by default.
        seed: decides everything that is random.
        checkpoint: a file that the training is saved to now and then, and gone on from if it is
            there.
        begin_from: the checkpoint of another training, whose weights this one begins with.
        device: that computes.
        progress: counts steps or seconds.

    Raises:
        DdpmError: neither steps nor seconds, or a checkpoint of another training.
    """
    check((steps is None) != (seconds is None), "say either how many steps or how many seconds")
    recipe = recipe or usual_recipe(image_format)
    fit = Fit(images, image_format, predict, timesteps, recipe, seed, torch.device(device))
    if checkpoint is not None and checkpoint.exists():
        fit.load(checkpoint)
    elif begin_from is not None:
        fit.begin_from(begin_from)
    return _run(fit, steps, seconds, checkpoint, progress)


def _run(
    fit: Fit,
    steps: int | None,
    seconds: float | None,
    checkpoint: Path | None,
    progress: Progress | None,
) -> LastStage:
    """Train to the end; the arguments are those of `fit_last_stage`."""
    total = steps if steps is not None else math.ceil(seconds or 0)
    before, saved = time.monotonic() - fit.elapsed, time.monotonic()
    for _ in range(fit.pool.size // BATCH):
        fit.renew()
        _tell(progress, fit, steps, total, before)
    while True:
        now = time.monotonic()
        fit.elapsed = now - before
        done = fit.step / steps if steps is not None else fit.elapsed / (seconds or 1)
        if checkpoint is not None and (now - saved > SAVE_EVERY or done >= 1):
            fit.save(checkpoint)
            saved = now
        if done >= 1:
            _tell(progress, fit, steps, total, before)
            fit.ahead.shutdown()
            return fit.frozen()
        fit.advance(done)
        if fit.step % 50 == 0:
            _tell(progress, fit, steps, total, before)


def _tell(
    progress: Progress | None, fit: Fit, steps: int | None, total: int, before: float
) -> None:
    """Say how far the training is."""
    if progress is not None:
        done = fit.step if steps is not None else min(int(time.monotonic() - before), total)
        found = f": {float(fit.loss):.3f} bits/dim" if fit.step else ""
        progress(done, total, f"last stage{found}")
