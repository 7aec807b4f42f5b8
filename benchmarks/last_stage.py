"""Train the exact last stage of a model's codec on CIFAR-10, and measure it on test images.

    python benchmarks/last_stage.py PATH/TO/CIFAR-10 --minutes 90 --out last_stage.safetensors

The training is saved to `OUT.training` every four minutes, and the same command goes on with it.
Prints the running bits/dim of the training, and at the end bits/dim of the integer network on test
images for each timestep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor

import ddpm
from ddpm.codec.fit_last_stage import Recipe, fit_last_stage
from ddpm.codec.last_stage import LastStage
from ddpm.codec.learning import knots
from ddpm.codec.snapping import Grid
from ddpm.data.open import open_data
from ddpm.runtime.device import exact_arithmetic
from ddpm.runtime.randomness import Randomness


@dataclass(frozen=True)
class Options:
    """What to train, and on what."""

    data: tyro.conf.Positional[Path]
    """CIFAR-10 in any form that `ddpm train cifar10` reads."""
    model: str = "cifar10-small"
    """Whose x_0 is predicted."""
    out: Path = Path("last_stage.safetensors")
    """Where the integers go."""
    minutes: float = 90
    """Of training, the network's calls included."""
    timesteps: tuple[int, ...] = ()
    """Knots that the stage interpolates between; those of `ddpm measure` by default."""
    width: int = 256
    """Of a hidden layer."""
    components: int = 6
    """Of the mixture."""
    windows: int = 2048
    """In a step."""
    cell: int = 4
    """Width in bytes of the cells that x_0 is rounded to."""
    pool: int = 16384
    """Images that windows are drawn from at a time."""
    renew: int = 800
    """Steps after which 64 of them are replaced."""
    test: int = 256
    """Test images to measure on."""
    threads: int = 2
    """That compute."""
    device: str = "cpu"
    """That computes, as `cuda`."""
    begin_from: Path | None = None
    """`OUT.training` of an earlier training, whose weights this one begins with."""


class Predictor:
    """x_0 predicted from an x_t of images, whose noise a number decides."""

    def __init__(self, model: ddpm.Ddpm) -> None:
        self.model, self.denoiser = model, model.denoiser("fp32")

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], timestep: int, number: int
    ) -> Float[Tensor, "b c h w"]:
        image_format, diffusion = self.model.format, self.model.diffusion
        device = self.model.device
        t = torch.full((len(images),), timestep, device=device)
        index = torch.arange(len(images), device=device)
        noise = Randomness(number, "last stage").normal(index, image_format.shape, timestep)
        with torch.inference_mode(), exact_arithmetic():
            x_t = diffusion.q_sample(image_format.to_unit(images.to(device)), t, noise)
            return diffusion.p_mean_variance(self.denoiser, x_t, t).pred_xstart.clone()


def measure(
    stage: LastStage, predict: Predictor, images: UInt8[Tensor, "n c h w"], timestep: int
) -> float:
    """Bits/dim of the last stage alone."""
    bits = 0.0
    for number, batch in enumerate(images.split(64)):
        xstart = predict(batch, timestep, 1_000_000 + number)
        bits += float(stage.bits(list(batch), list(xstart), timestep).sum())
    return bits / images.numel()


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    model = ddpm.load(options.model, device=options.device)
    predict = Predictor(model)
    timesteps = options.timesteps or knots(model.diffusion.schedule)
    source, held_out = (open_data(options.data, split) for split in ("train", "test"))
    recipe = Recipe(
        width=options.width,
        components=options.components,
        windows=options.windows,
        grid=Grid(options.cell),
        pool=options.pool,
        renew=options.renew,
        flip=True,
    )
    start, told = time.monotonic(), -60.0

    def progress(done: int, total: int, label: str) -> None:
        nonlocal told
        if time.monotonic() - start - told > 60:
            told = time.monotonic() - start
            print(f"{done:,} of {total:,} s, {label}", flush=True)

    stage = fit_last_stage(
        source,
        source.format,
        predict,
        timesteps,
        seconds=60 * options.minutes,
        recipe=recipe,
        checkpoint=options.out.with_suffix(".training"),
        begin_from=options.begin_from,
        device=options.device,
        progress=progress,
    )
    save_file(stage.tensors(), options.out)
    images = held_out[torch.arange(options.test)]
    for timestep in timesteps:
        print(
            f"t = {timestep}: {measure(stage, predict, images, timestep):.4f} bits/dim", flush=True
        )


if __name__ == "__main__":
    main()
