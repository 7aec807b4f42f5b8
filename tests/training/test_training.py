"""The training loop: resume to the bit, the schedule of the rate, averaging, the first loss."""

import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm.config import TrainingConfig, UNetConfig
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.networks.unet import UNet
from ddpm.registry import names
from ddpm.runtime.randomness import Randomness
from ddpm.training.ema import Ema
from ddpm.training.loop import train
from ddpm.training.presets import get_preset
from ddpm.training.step import learning_rate
from helpers import checkpoints, stats_of, tensors_of, tiny_config, tiny_images, with_training


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "flip": True}])
def test_resuming_gives_bit_identical_weights(tmp_path, options):
    config, images = tiny_config(steps=200, **options), tiny_images(n=30)
    train(config, images, tmp_path / "whole")
    train(with_training(config, steps=100), images, tmp_path / "parts")
    train(config, images, tmp_path / "parts", resume=True)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not any(torch.equal(whole[k], whole[k.replace("network", "ema")])
                   for k in whole if k.startswith("network.conv_out.w"))  # fmt: skip
    assert [line["step"] for line in stats_of(tmp_path / "parts")] == list(range(5, 201, 5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_happened(tmp_path, number):
    config, images = tiny_config(), tiny_images()

    class Interrupting(type(images)):
        def __getitem__(self, indices):
            Interrupting.reads += 1
            if Interrupting.reads == 7:
                os.kill(os.getpid(), number)
            return super().__getitem__(indices)

        def to(self, device):
            return self

    Interrupting.reads = 0
    source = Interrupting(images.images, 17, "noise")
    result = train(config, source, tmp_path / "parts")
    assert (result.stopped, result.step) == (signal.Signals(number).name, 7)
    assert result.checkpoint.is_file()
    train(config, images, tmp_path / "parts", resume=True)
    train(config, images, tmp_path / "whole")
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_max_minutes_stops_saved(tmp_path):
    config = tiny_config(steps=100_000, max_minutes=0.01)
    result = train(config, tiny_images(), tmp_path)
    assert result.stopped == "max_minutes"
    assert 0 < result.step < 100_000
    assert checkpoints(tmp_path)[-1] == result.checkpoint


def test_the_rate_warms_up_linearly_and_then_stays_or_falls_along_a_cosine():
    constant = TrainingConfig(lr=1.0, warmup=10, steps=100)
    assert [learning_rate(constant, s) for s in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1, 1, 1]
    cosine = replace(constant, lr_decay="cosine")
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    assert learning_rate(cosine, 75) == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert learning_rate(replace(constant, warmup=0), 0) == 1


def test_the_average_is_the_closed_form_sum_and_leaves_buffers_alone():
    network = UNet(ch=8, ch_mult=(1,), norm_groups=4, attn_resolutions=())
    network.register_buffer("count", torch.tensor(0.0))
    ema, first = Ema(network, 0.9), network.conv_in.bias.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            network.conv_in.bias.fill_(float(step))
            network.count.fill_(float(step))
        ema.update(network)
    expected = 0.9**5 * first + sum(0.1 * 0.9 ** (5 - s) * s for s in range(1, 6))
    assert torch.allclose(ema.network.conv_in.bias, expected)
    assert float(ema.network.count) == 5
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_the_first_loss_is_algorithm_1_by_hand(tmp_path):
    config = tiny_config(steps=1, log_every=1)
    images = tiny_images()
    train(config, images, tmp_path)
    abar = np.cumprod(1 - np.linspace(1e-4, 0.2, 20))
    slots, order = torch.arange(4), Randomness(0, "order").permutation(10, 0)
    x = images.images[order[:4]].double() / 8 - 1
    t = Randomness(0, "timestep").integers(slots, 20)
    noise = Randomness(0, "noise").normal(slots, (1, 8, 8)).double()
    a = torch.from_numpy(abar)[t].reshape(-1, 1, 1, 1)
    assert float((a.sqrt() * x + (1 - a).sqrt() * noise).std()) > 0.3
    # At the start the last layer is nearly zero, so the loss is the mean square of the noise.
    assert stats_of(tmp_path)[0]["loss"] == pytest.approx(float((noise**2).mean()), rel=1e-3)


def test_training_lowers_the_loss(tmp_path):
    config = tiny_config(steps=300, log_every=50, lr=3e-3)
    train(config, tiny_images(n=4, seed=3), tmp_path)
    losses = [line["loss"] for line in stats_of(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = tiny_config(steps=10)
    train(config, tiny_images(), tmp_path)
    before = checkpoints(tmp_path)
    broken = with_training(config, steps=40, lr=1e30)
    with pytest.raises(DdpmError, match="loss became"):
        train(broken, tiny_images(), tmp_path, resume=True)
    assert checkpoints(tmp_path) == before


def test_the_optimiser_is_the_papers_adam(tmp_path):
    from ddpm.training.state import TrainingState

    state = TrainingState(tiny_config(), ImageFormat(1, 8, 8, 17), torch.device("cpu"))
    group = state.optimizer.param_groups[0]
    assert type(state.optimizer) is torch.optim.Adam
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)


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
    images = type(tiny_images())(pixels, 17)
    result = train(config, images, tmp_path)
    assert (result.step, result.stopped) == (1, None)
