"""Images as blocks and parts: everything is covered once, and no part is larger than it may be."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.parts import blocks, parts
from ddpm.codec.tiles import grid

SIDE = st.integers(1, 900)
SHAPE = st.sampled_from([(1, 8, 8), (3, 32, 32), (3, 256, 256), (3, 500, 20)])


@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=5), SHAPE)
def test_every_pixel_is_in_one_block_and_every_part_has_its_limit(sizes, shape):
    seen = [torch.zeros(size, dtype=torch.int8) for size in sizes]
    found = list(parts(sizes, shape))
    most = max(256 // shape[1], 1) * max(256 // shape[2], 1)
    for part in found:
        tiles = [grid(block.size, shape) for block in part]
        assert sum(rows * columns for rows, columns in tiles) <= most
        for block in part:
            seen[block.image][block.place] += 1
            assert block.top % shape[1] == block.left % shape[2] == 0
    assert all(bool((one == 1).all()) for one in seen)
    order = [(block.image, block.top, block.left) for part in found for block in part]
    assert order == sorted(order)


def test_a_part_is_as_full_as_it_can_be():
    assert [len(part) for part in parts([(32, 32)] * 130, (3, 32, 32))] == [64, 64, 2]
    assert [len(part) for part in parts([(8, 8)] * 2000, (1, 8, 8))] == [1024, 976]
    assert [len(part) for part in parts([(300, 300)], (3, 32, 32))] == [1, 3]


def test_nothing_is_done_before_it_is_asked_for():
    first = next(parts([(1 << 30, 1 << 30)], (3, 32, 32)))
    assert [block.size for block in first] == [(256, 256)]
    assert next(blocks(0, (1 << 30, 5), (3, 32, 32))).size == (256, 5)
