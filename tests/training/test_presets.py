"""The presets: the paper's values, and each of them takes a step."""

from dataclasses import replace

import pytest
import torch

from ddpm.config import UNetConfig
from ddpm.registry import names
from ddpm.training.loop import train
from ddpm.training.presets import get_preset
from helpers import tiny_images

PAPER = {  # batch, lr, steps, flips, dropout, variance, ch, ch_mult
    "cifar10": (128, 2e-4, 800_000, True, 0.1, "fixed_large", 128, (1, 2, 2, 2)),
    "celebahq": (64, 2e-5, 500_000, True, 0.0, "fixed_small", 128, (1, 1, 2, 2, 4, 4)),
    "lsun-bedroom": (64, 2e-5, 2_400_000, False, 0.0, "fixed_small", 128, (1, 1, 2, 2, 4, 4)),
    "lsun-bedroom-large": (64, 2e-5, 1_150_000, False, 0.0, "fixed_small", 192, (1, 1, 2, 2, 4, 4)),
    "lsun-cat": (64, 2e-5, 1_800_000, True, 0.0, "fixed_small", 128, (1, 1, 2, 2, 4, 4)),
    "lsun-church": (64, 2e-5, 1_200_000, True, 0.0, "fixed_small", 128, (1, 1, 2, 2, 4, 4)),
}


@pytest.mark.parametrize("name", PAPER)
def test_presets_hold_the_papers_values(name):
    c = get_preset(name)
    found = (
        c.training.batch_size, c.training.lr, c.training.steps, c.data.flip, c.network.dropout,
        c.diffusion.variance_type, c.network.ch, c.network.ch_mult,
    )  # fmt: skip
    assert found == PAPER[name]
    assert c.data.image_size == (32 if name == "cifar10" else 256)
    assert (c.training.warmup, c.training.grad_clip, c.training.ema_decay) == (5000, 1.0, 0.9999)
    assert (c.diffusion.schedule, c.diffusion.timesteps) == ("linear", 1000)
    assert (c.network.num_res_blocks, c.network.attn_resolutions) == (2, (16,))
    assert (c.training.loss, c.diffusion.prediction_type) == ("simple", "epsilon")


@pytest.mark.slow
@pytest.mark.parametrize("name", names("preset"))
def test_every_preset_takes_a_step_with_a_tiny_network(name, tmp_path):
    config = get_preset(name)
    levels = tuple(1 for _ in config.network.ch_mult)
    network: UNetConfig = replace(config.network, ch=8, ch_mult=levels, norm_groups=4)
    training = replace(config.training, steps=1, batch_size=2, sample_every=0)
    side = min(config.data.image_size, 32)
    config = replace(config, network=network, training=training)
    channels = config.data.channels
    pixels = torch.randint(0, 17, (4, channels, side, side), dtype=torch.uint8)
    images = type(tiny_images())(pixels, 17, labels=torch.tensor([0, 1, 2, 9]))  # for cifar10-small
    result = train(config, images, tmp_path)
    assert (result.step, result.stopped) == (1, None)
