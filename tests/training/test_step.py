"""One step: the first loss and Adam's first move by hand, the rate, the average."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ddpm.config import TrainingConfig
from ddpm.data.images import ImageFormat
from ddpm.networks.unet import UNet
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.training import train
from ddpm.training.ema import Ema
from ddpm.training.state import TrainingState
from ddpm.training.step import learning_rate
from helpers import (
    stats_of,
    tensors_of,
    tiny_config,
    tiny_images,
)


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
        ema.update(network, 1000 + step)  # long after the decay has risen to its limit
    expected = 0.9**5 * first + sum(0.1 * 0.9 ** (5 - s) * s for s in range(1, 6))
    assert torch.allclose(ema.network.conv_in.bias, expected)
    assert float(ema.network.count) == 5
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_the_optimiser_is_the_papers_adam(tmp_path):
    from ddpm.training.state import TrainingState

    state = TrainingState(tiny_config(), ImageFormat(1, 8, 8, 17), torch.device("cpu"))
    group = state.optimizers.parts[0][0].param_groups[0]
    assert type(state.optimizers.parts[0][0]) is torch.optim.Adam
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)


def first_loss_by_hand(config, images, network, index):
    """Algorithm 1's loss of step 0 in a few lines of its own (Eq. 4 and 14)."""
    x = images.images[index].double() / 8 - 1  # 17 grey levels
    slots = torch.arange(len(index))
    if config.data.flip:
        mirrored = Randomness(config.training.seed, "flip").integers(slots, 2, 0).bool()
        x = torch.stack([p.flip(-1) if m else p for p, m in zip(x, mirrored, strict=True)])
    t = Randomness(config.training.seed, "timestep").integers(slots, 20, 0)
    noise = Randomness(config.training.seed, "noise").normal(slots, x.shape[1:], 0).double()
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.2, 20, dtype=torch.float64), 0)[t]
    abar = abar[:, None, None, None]
    x_t = abar.sqrt() * x + (1 - abar).sqrt() * noise
    return F.mse_loss(network(x_t.float(), t), noise.float())


def initial_network(config):
    """The network as a run of this configuration begins with it."""
    facts = ImageFormat(1, 8, 8, 17)
    return TrainingState(config, facts, torch.device("cpu")).network


@pytest.mark.parametrize("flip", [False, True])
def test_the_loss_of_step_0_is_the_one_computed_by_hand(tmp_path, flip):
    config = tiny_config(steps=1, flip=flip, batch_size=8)
    images = tiny_images(8)
    order = torch.Generator().manual_seed(derive_key(0, "order", 0))
    index = torch.randperm(8, generator=order)
    network = initial_network(config)
    expected = first_loss_by_hand(config, images, network, index).item()
    train(config, images, tmp_path)
    (line,) = stats_of(tmp_path)
    assert line["step"] == 1
    assert line["loss"] == pytest.approx(expected, rel=1e-5)
    assert 0.5 < expected < 1.5  # the fresh network predicts about nothing of unit noise


def test_the_first_step_is_adams_with_the_clipped_gradient(tmp_path):
    # Adam's first step is -lr g / (|g| + eps), g being the gradient scaled to norm `grad_clip`.
    config = tiny_config(steps=1, batch_size=8, warmup=4, lr=4e-3, grad_clip=1e-3)
    images = tiny_images(8)
    order = torch.Generator().manual_seed(derive_key(0, "order", 0))
    network = initial_network(config)
    first_loss_by_hand(config, images, network, torch.randperm(8, generator=order)).backward()
    norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in network.parameters()))
    assert norm > 1e-3
    stored = tensors_of(train(config, images, tmp_path))
    for name, parameter in network.named_parameters():
        g = parameter.grad.double() * (1e-3 / norm)
        torch.testing.assert_close(
            stored[f"exp_avg.{name}"].double(), 0.1 * g, rtol=1e-3, atol=1e-9
        )
        torch.testing.assert_close(
            stored[f"exp_avg_sq.{name}"].double(), 1e-3 * g**2, rtol=1e-3, atol=1e-15
        )
        clear = g.abs() > 1e-7  # elsewhere eps and rounding decide
        moved = (stored[f"network.{name}"] - parameter.detach()).double()
        expected = -1e-3 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(moved[clear], expected[clear], rtol=5e-2, atol=2e-7)
        shadow = (stored[f"ema.{name}"] - parameter.detach()).double()
        # The first decay is 1/10, whatever it rises to.
        torch.testing.assert_close(shadow, 0.9 * moved, rtol=1e-3, atol=2e-7)
