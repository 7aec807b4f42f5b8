"""A network that knows classes: where they enter, and classifier-free guidance on its output."""

import pytest
import torch
import torch.nn.functional as F

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.networks.guidance import guided, with_labels
from ddpm.networks.unet import UNet

SMALL = {"image_size": (8, 8), "ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "norm_groups": 4}


def unet(classes, seed=0, **options):
    torch.manual_seed(seed)
    return UNet(**{**SMALL, "attn_resolutions": (4,), **options}, classes=classes).eval()


def lively(network, seed=1):
    """The same network with no weight near zero, so that everything shows in its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(b=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(b, 3, 8, 8, generator=generator), torch.arange(b) * 100


def test_classes_add_one_table_and_nothing_else_is_another_number():
    without, with_some = unet(0).state_dict(), unet(6).state_dict()
    added = with_some.keys() - without.keys()
    assert {name: tuple(with_some[name].shape) for name in added} == {"class_rows.weight": (7, 32)}
    assert all(torch.equal(with_some[name], value) for name, value in without.items())
    assert not any("class" in name for name in without)


def test_a_row_is_added_to_the_time_embedding_before_its_last_swish():
    network, plain = lively(unet(4)), unet(0)
    x, t = inputs()
    for label in (0, 3, 4):
        weights = network.state_dict()
        row = weights.pop("class_rows.weight")[label]
        weights["time2.bias"] = weights["time2.bias"] + row
        plain.load_state_dict(weights)
        with torch.no_grad():
            found = network(x, t, torch.full((5,), label))
            assert F.mse_loss(found, plain(x, t)) < 1e-10


def test_every_image_has_a_label_of_its_own_and_no_labels_are_the_null_class():
    network = lively(unet(4))
    x, t = inputs()
    labels = torch.tensor([2, 0, 4, 3, 2])
    with torch.no_grad():
        mixed = network(x, t, labels)
        alone = [network(x, t, torch.full((5,), int(label)))[i] for i, label in enumerate(labels)]
        torch.testing.assert_close(mixed, torch.stack(alone))
        assert torch.equal(network(x, t), network(x, t, torch.full((5,), 4)))
        assert not torch.allclose(network(x, t), network(x, t, torch.zeros(5, dtype=torch.long)))


def test_a_network_without_classes_takes_no_labels():
    x, t = inputs()
    with pytest.raises(DdpmError, match="knows no classes"):
        unet(0)(x, t, torch.zeros(5, dtype=torch.long))
    with pytest.raises(DdpmError, match="classes must be at least 0, got -1"):
        unet(-1)


def test_classes_learn_with_recomputed_activations_as_without():
    gradients = []
    for recomputed in (False, True):
        network = lively(unet(4)).train()
        network.activation_checkpointing = recomputed
        x, t = inputs()
        network(x, t, torch.tensor([0, 1, 1, 4, 4])).square().mean().backward()
        gradients.append(network.class_rows.weight.grad)
    torch.testing.assert_close(*gradients)
    used = gradients[0].abs().sum(dim=1) > 0
    assert used.tolist() == [True, True, False, False, True]


class Counted:
    """A formula of (x, t, label) with `parts` times the channels; it notes which labels it saw."""

    def __init__(self, parts=1):
        self.parts, self.calls = parts, []

    def __call__(self, x, t, labels):
        self.calls.append(labels.tolist())
        value = torch.sin(x) + 0.01 * t.reshape(-1, 1, 1, 1) + labels.reshape(-1, 1, 1, 1)
        return torch.cat([value * (i + 1) for i in range(self.parts)], dim=1)


@pytest.mark.parametrize(("guidance", "shown"), [(1.0, 3), (0.0, 9)])
def test_the_neutral_values_are_one_plain_call_to_the_last_bit(guidance, shown):
    network = Counted()
    x, t = inputs()
    found = guided(network, 3, 9, guidance, "fp32")(x, t)
    labels = torch.full((5,), shown)
    assert network.calls == [labels.tolist()]
    assert torch.equal(found, with_labels(Counted(), labels, "fp32")(x, t))


@pytest.mark.parametrize("guidance", [0.5, 1.5, 4.0])
def test_guidance_is_u_plus_s_times_c_minus_u_in_one_call(guidance):
    network = Counted()
    x, t = inputs()
    found = guided(network, 3, 9, guidance, "fp32")(x, t)
    assert network.calls == [[3] * 5 + [9] * 5]
    c, u = (Counted()(x, t, torch.full((5,), label)) for label in (3, 9))
    torch.testing.assert_close(found, u + guidance * (c - u))
    w = guidance - 1  # the other convention
    torch.testing.assert_close(found, (1 + w) * c - w * u)


def test_a_learned_variance_is_that_of_the_class():
    x, t = inputs()
    found = guided(Counted(parts=2), 3, 9, 2.0, "fp32")(x, t)
    c = Counted(parts=2)(x, t, torch.full((5,), 3))
    assert torch.equal(found[:, 3:], c[:, 3:])
    assert not torch.allclose(found[:, :3], c[:, :3])


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "previous_mean"])
def test_guidance_means_the_same_for_every_prediction_type(kind):
    """A network that predicts something else of the same x_0 is guided to the same noise."""
    diffusion = GaussianDiffusion(make_schedule("linear", 20, 1e-3, 0.2), prediction_type=kind)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    t = torch.tensor([1, 5, 10, 19])

    def noise(labels):
        return torch.sin(x * (1 + labels.reshape(-1, 1, 1, 1)))

    def network(images, times, labels):
        given = torch.cat([noise(part) for part in labels.split(4)])
        start = diffusion.xstart_from_epsilon(given, images, times)
        return diffusion.from_xstart(start, images, times)

    output = guided(network, 2, 7, 3.0, "fp32")(x, t)
    found = diffusion.convert(output.double(), x, t, "epsilon")
    c, u = noise(torch.full((4,), 2)), noise(torch.full((4,), 7))
    torch.testing.assert_close(found, u + 3.0 * (c - u), atol=3e-4, rtol=1e-4)
