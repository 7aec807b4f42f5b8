"""The norm in bfloat16 on a CPU: as exact as PyTorch's, and nothing else is changed."""

import pytest
import torch
from torch import nn

from ddpm.networks.layers import GroupNorm


def pair():
    """Ours and PyTorch's with the same weights."""
    ours, theirs = GroupNorm(4, 16, eps=1e-6), nn.GroupNorm(4, 16, eps=1e-6)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("side", [4, 32, 40])
def test_in_float32_it_is_pytorchs_to_the_last_bit(side):
    ours, theirs = pair()
    x = torch.randn(3, 16, side, side).contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("side", [4, 31, 32, 40])
def test_in_bfloat16_it_errs_no_more_than_pytorchs(side, gradients):
    ours, theirs = pair()
    x = torch.randn(3, 16, side, side).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = theirs.double()(x.double())
    theirs.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = [norm(x.clone().requires_grad_(gradients)) for norm in (ours, theirs)]
    errors = [float((y.double() - exact).detach().square().mean().sqrt()) for y in found]
    assert found[0].dtype == torch.bfloat16
    assert errors[0] <= 1.02 * errors[1]
    assert errors[0] < 0.01


def test_gradients_in_bfloat16_are_those_of_the_exact_norm():
    ours, theirs = pair()
    x = torch.randn(3, 16, 8, 8)
    one = x.bfloat16().requires_grad_()
    weight = torch.randn(x.shape)
    (ours(one).float() * weight).sum().backward()
    two = one.detach().double().requires_grad_()
    (theirs.double()(two) * weight.double()).sum().backward()
    torch.testing.assert_close(one.grad.double(), two.grad, rtol=0.02, atol=0.02)
    torch.testing.assert_close(ours.weight.grad.double(), theirs.weight.grad, rtol=0.02, atol=0.1)
