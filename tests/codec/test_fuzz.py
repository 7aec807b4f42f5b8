"""Thousands of damaged files: images or a sentence, within bounded memory, and no hang.

`DDPM_FUZZ` sets how many; 20,000 take some minutes.
"""

import os
import resource
import zlib

import numpy as np
import pytest
import torch

from ddpm.codec.header import GENERAL, Header, Part, parse
from ddpm.codec.route import Route
from ddpm.errors import DdpmError

FILES = int(os.environ.get("DDPM_FUZZ", "600"))
MEMORY = 1 << 30  # bytes that the whole run may add


def flip(random, data):
    """Some bits turned."""
    for _ in range(random.integers(1, 5)):
        data[random.integers(len(data))] ^= 1 << random.integers(8)
    return data


def cut(random, data):
    """A part left out."""
    a, b = sorted(random.integers(0, len(data) + 1, 2))
    return data[:a] + data[b:]


def insert(random, data):
    """Random bytes in between."""
    place = random.integers(len(data) + 1)
    return data[:place] + random.bytes(random.integers(1, 40)) + data[place:]


def noise(random, data):
    """A true header before random bytes."""
    size = len(data) - len(parse(bytes(data))[1])
    return data[:size] + random.bytes(random.integers(0, 80))


def forge(random, data):
    """A long header with a right checksum and wrong contents, before the true payload."""
    header, payload, _ = parse(bytes(data))
    count = int(random.integers(1, 4))
    size = (int(random.integers(0, 40)), int(random.integers(0, 2) * random.integers(0, 1 << 30)))
    falls = np.sort(random.choice(19, random.integers(1, 6), replace=False))[::-1].tolist()
    routes = [None, Route((19, *falls), tuple(random.integers(0, 1 << 20, len(falls)).tolist()))]
    forged = Header(
        header.model,
        count,
        [None, (size,), (size,) * count][random.integers(3)],
        [None, ("a", "../b", "")[:count]][random.integers(2)],
        routes[random.integers(2)],
        bool(random.integers(2)),
        tuple(Part(int(random.integers(0, 200)), 0) for _ in range(random.integers(0, 3))),
    )
    return forged.pack() + payload


def reseal(random, data):
    """Bytes turned in a header, whose checksum is then made right if it has one."""
    size = len(data) - len(parse(bytes(data))[1])
    data[random.integers(1, size)] = random.integers(256)
    if data[1] & 15 == GENERAL:
        data[size - 2 : size] = (zlib.crc32(data[: size - 2]) & 0xFFFF).to_bytes(2, "little")
    return data


MUTATIONS = [flip, cut, insert, noise, forge, reseal]


@pytest.fixture(scope="module")
def files(model, held_out):
    """Small files of every kind, each with its images."""
    odd = [torch.zeros(1, 3, 11, dtype=torch.uint8), held_out[7]]
    one, three = [held_out[0]], list(held_out[:3])
    return [
        (model.compress(one), one),
        (model.compress(three, steps=8, names=["a", "b", "c/d"]), three),
        (model.compress(odd, steps=3), odd),
    ]


@pytest.mark.slow
def test_no_damage_ends_in_anything_but_images_or_a_sentence(model, files):
    random = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = []
    for i in range(FILES):
        data, images = files[i % len(files)]
        mutation = MUTATIONS[random.integers(len(MUTATIONS))]
        damaged = bytes(mutation(random, bytearray(data)))
        try:
            result = model.decompress(damaged, reconstruct=("mean", "sample")[i % 2])
        except DdpmError as error:
            told.append(str(error))
        else:
            assert all(int(image.max()) <= 16 for image in result.images)
            pixels = (torch.cat([x.flatten() for x in xs]) for xs in (result.images, images))
            assert not result.exact or torch.equal(*pixels)
    assert all(20 < len(sentence) < 300 for sentence in told)
    assert len(told) > FILES / 4
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY
