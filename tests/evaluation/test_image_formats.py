"""Classical formats: the sheet that is written, and what comes back of it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.digits import digits
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.evaluation.image_formats import (
    LONGEST,
    QUALITIES,
    available_formats,
    lossless_bytes,
    lossy_curve,
    lossy_files,
    sheet,
)

DIGITS = ImageFormat(1, 8, 8, 17)


def test_a_sheet_holds_every_image_once_and_black_beyond():
    images = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 1, 2, 3) + 1
    pixels = sheet(images, ImageFormat(1, 2, 3))
    assert pixels.shape == (10, 3)
    assert pixels[::2, 0].tolist() == [1, 2, 3, 4, 5]
    many = torch.full((3, 3, LONGEST // 2, 1), 7, dtype=torch.uint8)
    wide = sheet(many, ImageFormat(3, LONGEST // 2, 1))
    assert wide.shape == (2 * (LONGEST // 2), 2, 3)
    assert (wide == 7).mean() == 3 / 4
    assert (
        sheet(torch.full((1, 1, 1, 1), 16, dtype=torch.uint8), ImageFormat(1, 1, 1, 17)).item()
        == 255
    )


def test_lossless_sizes_are_those_of_whole_files():
    images = digits("test").images[:20]
    buffer = io.BytesIO()
    spread = np.round(images.numpy() * (255 / 16)).astype(np.uint8).reshape(160, 8)
    Image.fromarray(spread).save(buffer, format="PNG", optimize=True)
    assert lossless_bytes(images, DIGITS, "PNG") == buffer.tell()
    assert lossless_bytes(images, DIGITS, "WebP") < images.numel()


def test_a_better_quality_takes_more_bytes_and_errs_less():
    points = lossy_curve(digits("test").images[:40], DIGITS, "JPEG")
    assert 1 < len(points) <= len(QUALITIES)
    sizes, errors = zip(*points, strict=True)
    assert list(sizes) == sorted(set(sizes))
    assert list(errors) == sorted(set(errors), reverse=True)
    assert errors[0] > 10 * errors[-1] > 0


def test_no_file_of_a_curve_could_be_replaced_by_a_smaller_one():
    colours = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), np.uint8))
    image_format = ImageFormat(3, 16, 16)
    pixels = sheet(colours, image_format)
    files = lossy_files(pixels, "JPEG")
    assert len(files) == 2 * len(QUALITIES)  # colours at half their size, and at their whole
    points = lossy_curve(colours, image_format, "JPEG")
    for size, back in files:
        mse = float(np.square(back.astype(float) - pixels).mean())
        assert min(m for s, m in points if s <= size) <= mse
    assert min(m for _, m in points) < 0.5 * min(
        np.square(back.astype(float) - pixels).mean() for _, back in files[::2]
    )
    assert lossy_files(pixels, "PNG") == []


def test_only_what_can_be_written_is_offered_and_only_pictures_are_taken():
    assert {"PNG", "WebP", "JPEG"} <= set(available_formats())
    with pytest.raises(DdpmError, match="1 or 3 channels"):
        sheet(torch.zeros(1, 2, 4, 4, dtype=torch.uint8), ImageFormat(2, 4, 4))
