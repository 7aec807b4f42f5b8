"""Images as blocks and parts: everything is covered once, and no part is larger than it may be."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.parts import blocks, parts
from ddpm.codec.tiles import grid

SIDE = st.one_of(st.integers(1, 900), st.integers(1, 2500))
SHAPE = st.sampled_from([(1, 8, 8), (3, 32, 32), (3, 256, 256), (3, 500, 20)])


@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5), SHAPE)
def test_every_pixel_is_in_one_block_and_every_part_has_its_limit(sizes, shape):
    seen = [torch.zeros(size, dtype=torch.int8) for size in sizes]
    found = list(parts(sizes, shape))
    most = max(512 // shape[1], 1) * max(512 // shape[2], 1)
    one = max(1024 // shape[1], 1) * max(1024 // shape[2], 1)
    for part in found:
        tiles = [grid(block.size, shape) for block in part]
        assert sum(rows * columns for rows, columns in tiles) <= (most if len(part) > 1 else one)
        for block in part:
            seen[block.image][block.place] += 1
            assert block.top % shape[1] == block.left % shape[2] == 0
    assert all(bool((image == 1).all()) for image in seen)
    order = [(block.image, block.top, block.left) for part in found for block in part]
    assert order == sorted(order)


def test_a_part_is_as_full_as_it_can_be():
    assert [len(part) for part in parts([(32, 32)] * 600, (3, 32, 32))] == [256, 256, 88]
    assert [len(part) for part in parts([(8, 8)] * 5000, (1, 8, 8))] == [4096, 904]
    assert [len(part) for part in parts([(600, 600)], (3, 32, 32))] == [1]
    many = [(32, 32), (600, 600), (32, 32), (1100, 250), (32, 32), (32, 32)]
    found = [[(b.image, *b.size) for b in part] for part in parts(many, (3, 32, 32))]
    assert found == [
        [(0, 32, 32)],
        [(1, 600, 600)],
        [(2, 32, 32)],
        [(3, 1024, 250)],
        [(3, 76, 250), (4, 32, 32), (5, 32, 32)],
    ]


def test_a_picture_of_a_megapixel_is_one_part():
    assert [len(part) for part in parts([(1024, 1024)], (3, 32, 32))] == [1]
    assert [len(part) for part in parts([(1025, 1024)], (3, 32, 32))] == [1, 1]
    assert [len(part) for part in parts([(1000, 1000)], (3, 256, 256))] == [1]


def test_nothing_is_done_before_it_is_asked_for():
    first = next(parts([(1 << 30, 1 << 30)], (3, 32, 32)))
    assert [block.size for block in first] == [(1024, 1024)]
    assert next(blocks(0, (1 << 30, 5), (3, 32, 32))).size == (1024, 5)
