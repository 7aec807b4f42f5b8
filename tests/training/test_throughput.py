"""Counted arithmetic against a count by hand, and the compiler that fails."""

import logging

import pytest
import torch
from torch import nn

from ddpm.networks.unet import Attention, UNet
from ddpm.training.compiling import compiled
from ddpm.training.presets import get_preset
from ddpm.training.throughput import forward_flops, peak_flops, training_flops


def by_hand(network, side):
    """2 x weights x output positions of each layer; 4 c n^2 for the products of attention."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += 2 * module.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(module, nn.Linear):
            total += 2 * module.weight.numel()
        elif isinstance(module, Attention):
            positions = output.shape[2] * output.shape[3]
            total += 4 * output.shape[1] * positions**2

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side), torch.zeros(1, dtype=torch.long))
    return total


def test_the_arithmetic_is_counted_as_by_hand():
    network = UNet(image_size=(16, 16), ch=32, ch_mult=(1, 2), attn_resolutions=(8,), dropout=0.0)
    counted = forward_flops(network, (3, 16, 16))
    assert counted == by_hand(network, 16)
    assert training_flops(network, (3, 16, 16)) == 3 * counted


def test_the_papers_network_takes_12_gigaflops():
    network = get_preset("cifar10").build_network((3, 32, 32))
    assert forward_flops(network, (3, 32, 32)) == pytest.approx(12.1e9, rel=0.05)


def test_no_share_is_told_of_a_device_whose_peak_is_not_known(monkeypatch):
    cuda = torch.device("cuda")
    assert peak_flops(torch.device("cpu"), "bf16") is None
    for name, peak in (("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989e12), ("A thing", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(cuda, "bf16") == peak
        assert peak_flops(cuda, "fp32") is None


def test_a_compiler_that_fails_is_told_once_and_done_without(monkeypatch, caplog):
    def compile(network):
        def call(x, t):
            raise RuntimeError("no C++ compiler\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", compile)
    network = UNet(image_size=(8, 8), ch=32, ch_mult=(1,), attn_resolutions=())
    network.eval()
    call = compiled(network)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0, 5])
    with caplog.at_level(logging.WARNING, "ddpm"):
        assert torch.equal(call(x, t), network(x, t))
        assert torch.equal(call(x, t), network(x, t))
    assert [record.message for record in caplog.records] == [
        "torch.compile failed, continuing without it: no C++ compiler"
    ]
