"""Simple codes against their definitions, and the digits' known costs."""

import math

import pytest
import torch

from ddpm.data.digits import digits
from ddpm.metrics.baselines import file_bpd, histogram_bpd, uniform_bpd


def test_a_histogram_costs_the_cross_entropy_with_one_count_added():
    training = torch.tensor([[0, 1], [0, 1], [0, 2]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    image = torch.tensor([[0, 0]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    by_hand = -(math.log2(4 / 6) + math.log2(1 / 6)) / 2
    assert histogram_bpd(training, image, 3) == pytest.approx(by_hand)


def test_the_digits_cost_what_they_are_known_to_cost():
    held_out = digits("test").images
    assert uniform_bpd(17) == pytest.approx(4.087, abs=1e-3)
    assert histogram_bpd(digits("train").images, held_out, 17) == pytest.approx(2.42, abs=0.05)
    for name in ("PNG", "WEBP"):
        assert 2.0 < file_bpd(held_out, name) < 4.1
    noise = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    assert file_bpd(noise, "PNG") > 8
