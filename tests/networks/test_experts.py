"""Two networks by noise level: which one computes, and that nothing else is different."""

import pytest
import torch

from ddpm.config import Config, DataConfig, DiffusionConfig, UNetConfig
from ddpm.errors import DdpmError
from ddpm.networks.experts import Experts


def experts(switch=300, **settings):
    torch.manual_seed(0)
    config = UNetConfig(
        ch=8, ch_mult=(1, 2), num_res_blocks=1, norm_groups=4, dropout=0, switch=switch, **settings
    )
    network = config.build((3, 8, 8), 3)
    for weight in network.parameters():  # so that no output is almost zero
        torch.nn.init.normal_(weight, std=0.3)
    return network


T = torch.tensor([0, 299, 300, 999, 5, 700])
X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [0, 1, 4], [2, 3, 5], [3], [0]])
def test_every_image_goes_to_the_network_of_its_time(rows, training):
    network = experts().train(training)
    x, t = X[rows], T[rows]
    found = network(x, t)
    for i, time in enumerate(t):
        one = network.below if time < 300 else network.above
        torch.testing.assert_close(found[i : i + 1], one(x[i : i + 1], t[i : i + 1]))


def test_labels_go_along():
    network = experts(classes=3).eval()
    labels = torch.tensor([0, 1, 2, 3, 1, 0])
    found = network(X, T, labels)
    for i in range(6):
        one = network.below if T[i] < 300 else network.above
        expected = one(X[i : i + 1], T[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], expected)
    torch.testing.assert_close(network(X, T), network(X, T, torch.full_like(T, 3)))


@pytest.mark.parametrize("rows", [[0, 1], [2, 3]])
def test_every_weight_has_a_gradient_in_training_even_of_no_image(rows):
    network = experts().train()
    network(X[rows], T[rows]).square().mean().backward()
    idle = network.above if T[rows[0]] < 300 else network.below
    busy = network.below if T[rows[0]] < 300 else network.above
    assert all((weight.grad == 0).all() for weight in idle.parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in busy.parameters())


def test_without_training_only_one_of_them_computes():
    network = experts().eval()
    calls = []
    network.below.register_forward_hook(lambda *_: calls.append("below"))
    network.above.register_forward_hook(lambda *_: calls.append("above"))
    network(X[:2], T[:2])
    network(X[2:4], T[2:4])
    assert calls == ["below", "above"]


def test_its_blocks_are_recomputed_and_found():
    network = experts().train()
    assert len(list(network.blocks())) == 2 * len(list(network.below.blocks()))
    plain = network(X, T)
    network.activation_checkpointing = True
    assert network.below.activation_checkpointing
    assert network.above.activation_checkpointing
    torch.testing.assert_close(network(X, T), plain, rtol=0, atol=0)


def test_what_no_weights_tell_has_the_switch():
    assert experts(300).untold != experts(301).untold
    assert "openai" in experts(variant="openai").untold


def test_a_switch_is_checked_and_stored():
    config = Config(
        data=DataConfig(image_size=8),
        network=UNetConfig(ch=8, ch_mult=(1, 2), norm_groups=4, switch=250),
        diffusion=DiffusionConfig(prediction_type="v_prediction"),
    )
    assert Config.from_dict(config.to_dict()) == config
    network = config.build_network((3, 8, 8))
    assert isinstance(network, Experts)
    assert network.switch == 250
    with pytest.raises(DdpmError, match="switch must be at least 0"):
        UNetConfig(switch=-1)
    with pytest.raises(DdpmError, match=r"network\.switch must lie below T = 1,000"):
        Config(network=UNetConfig(switch=1000))
