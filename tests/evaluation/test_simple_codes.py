"""Simple codes against their definitions, and the digits' known costs."""

import itertools
import lzma
import math
from collections import Counter

import pytest
import torch

from ddpm.data.digits import digits
from ddpm.evaluation.simple_codes import context_bpd, histogram_bpd, uniform_bpd, xz_bpd


def test_a_histogram_costs_the_cross_entropy_with_one_count_added():
    training = torch.tensor([[0, 1], [0, 1], [0, 2]], dtype=torch.uint8).reshape(3, 1, 1, 2)
    image = torch.tensor([[0, 0]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    by_hand = -(math.log2(4 / 6) + math.log2(1 / 6)) / 2
    assert histogram_bpd(training, image, 3) == pytest.approx(by_hand)


def test_the_digits_cost_what_they_are_known_to_cost():
    held_out = digits("test").images
    assert uniform_bpd(17) == pytest.approx(4.087, abs=1e-3)
    assert histogram_bpd(digits("train").images, held_out, 17) == pytest.approx(2.42, abs=0.05)


def test_a_context_costs_what_its_counts_say_by_hand():
    training = torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8).reshape(2, 1, 1, 2)
    image = torch.tensor([[0, 1]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    # All four pixels have neighbours (0, 0): two 0s and two 1s, so 1/2 each after smoothing.
    # Then at the first pixel 0 was seen twice of twice, at the second 1: (2 + 2 * 1/2) / (2 + 2).
    assert context_bpd(training, image, 2) == pytest.approx(-math.log2(3 / 4))
    # Neighbours (1, 0) were never seen, so a pixel right of a 1 costs one bit of two levels.
    image = torch.tensor([[1, 1]], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert context_bpd(training, image, 2) == pytest.approx((-math.log2(1 / 4) + 1) / 2)


def test_a_context_costs_the_same_as_a_slow_count_of_every_pixel():
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, 3, (20, 2, 3, 4), dtype=torch.uint8, generator=generator)
    images = torch.randint(0, 3, (5, 2, 3, 4), dtype=torch.uint8, generator=generator)

    def walk(batch):
        for image in batch.tolist():
            for c, y, x in itertools.product(range(2), range(3), range(4)):
                left = image[c][y][x - 1] if x else 0
                upper = image[c][y - 1][x] if y else 0
                yield (c, left, upper), (c, y, x, left, upper), image[c][y][x]

    seen = Counter()
    for wide, narrow, level in walk(training):
        seen.update([wide, narrow, (*wide, "level", level), (*narrow, "level", level)])
    bits = []
    for wide, narrow, level in walk(images):
        backed_off = (seen[(*wide, "level", level)] + 1) / (seen[wide] + 3)
        exact = (seen[(*narrow, "level", level)] + 3 * backed_off) / (seen[narrow] + 3)
        bits.append(-math.log2(exact))
    assert context_bpd(training, images, 3) == pytest.approx(sum(bits) / len(bits))


def test_contexts_tell_nothing_of_noise_and_all_of_copies():
    noise = torch.randint(0, 4, (4000, 1, 4, 4), dtype=torch.uint8)
    assert context_bpd(noise[:3000], noise[3000:], 4) == pytest.approx(2, abs=0.02)
    # The left neighbour decides the next level, though each level is as frequent as any other.
    ramp = (torch.arange(8) + torch.randint(0, 4, (500, 1, 1, 1))) % 4
    ramp = ramp.to(torch.uint8).expand(500, 1, 8, 8).contiguous()
    assert context_bpd(ramp[:400], ramp[400:], 4) < 0.5
    assert histogram_bpd(ramp[:400], ramp[400:], 4) > 1.9


def test_xz_is_the_size_of_a_file_that_decodes_to_the_pixels(monkeypatch):
    files = []
    compress = lzma.compress

    def keep(*arguments, **options):
        files.append(compress(*arguments, **options))
        return files[-1]

    monkeypatch.setattr(lzma, "compress", keep)
    noise = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    assert xz_bpd(noise) > 8
    assert lzma.decompress(files[0]) == noise.numpy().tobytes()
    assert xz_bpd(noise) == 8 * len(files[0]) / noise.numel()
    constant = torch.full_like(noise, 7)
    assert xz_bpd(constant) < 0.1
    # Another layout in memory is not another set of images.
    assert xz_bpd(noise.transpose(2, 3)) == xz_bpd(noise.transpose(2, 3).contiguous())


def test_the_digits_cost_less_by_context():
    training, held_out = digits("train").images, digits("test").images
    cost = context_bpd(training, held_out, 17)
    assert cost == pytest.approx(2.21, abs=0.05)
    assert cost < histogram_bpd(training, held_out, 17) < xz_bpd(held_out) < uniform_bpd(17)
