"""Tiles: any image becomes tiles and comes back, and the padding is known from the sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.codec.tiles import cut, grid, join, masks


@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
    channels=st.sampled_from([1, 3]),
)
@settings(deadline=None)
def test_images_of_any_sizes_come_back(sizes, channels):
    shape = (channels, 8, 6)
    images = [torch.randint(0, 256, (channels, *size), dtype=torch.uint8) for size in sizes]
    tiles, real = cut(images, shape)
    assert len(tiles) == sum(rows * columns for rows, columns in (grid(s, shape) for s in sizes))
    assert int(real.sum()) == sum(height * width for height, width in sizes)
    assert torch.equal(masks(sizes, shape), real)
    back = join(tiles, sizes, shape)
    assert all(torch.equal(a, b) for a, b in zip(back, images, strict=True))


def test_the_padding_repeats_the_border_and_is_marked():
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    tiles, real = cut([image], (1, 4, 3))
    assert tiles.tolist() == [
        [[[0, 1, 2], [4, 5, 6], [8, 9, 10], [8, 9, 10]]],
        [[[3, 3, 3], [7, 7, 7], [11, 11, 11], [11, 11, 11]]],
    ]
    assert real[0].tolist() == [[True] * 3] * 3 + [[False] * 3]
    assert real[1].tolist() == [[True, False, False]] * 3 + [[False] * 3]


@pytest.mark.parametrize(
    ("size", "expected"), [((8, 8), (1, 1)), ((9, 8), (2, 1)), ((1, 17), (1, 3))]
)
def test_as_few_tiles_as_cover(size, expected):
    assert grid(size, (1, 8, 8)) == expected
