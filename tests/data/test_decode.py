"""Encoded images to squares of pixels: colour modes, geometry, filters."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.decode import decode_image as decode_bytes

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def decode_image(path, image_size, channels):
    """The image in a file."""
    return decode_bytes(path.read_bytes(), image_size, channels)


def stripes(horizontal):
    """24 pixels of red, green and blue thirds along one axis, 8 along the other."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:16], pixels[:, 16:] = RED, GREEN, BLUE
    return Image.fromarray(pixels if horizontal else pixels.transpose(1, 0, 2).copy())


def colours(image):
    """The different colours of a [3, h, w] tensor."""
    return {tuple(c) for c in image.flatten(1).T.tolist()}


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("L", 90), ("RGB", (90, 90, 90)), ("RGBA", (90, 90, 90, 255)), ("LA", (90, 255))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_modes_become_the_channels_that_are_asked_for(tmp_path, mode, colour, channels):
    Image.new(mode, (4, 4), colour).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 4, channels)
    assert image.shape == (channels, 4, 4)
    assert image.dtype == torch.uint8
    assert image.unique().tolist() == [90]


def test_a_palette_image_shows_its_palettes_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png")
    assert colours(decode_image(tmp_path / "a.png", 4, 3)) == {BLUE}


def test_colour_becomes_grey_by_the_luma_of_bt_601(tmp_path):
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    grey = decode_image(tmp_path / "a.png", 2, 1)
    assert abs(int(grey[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_rows_and_columns_keep_their_places(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 2, 3)
    assert image.tolist() == pixels.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize("horizontal", [True, False])
def test_the_middle_of_the_longer_side_is_kept(tmp_path, horizontal):
    stripes(horizontal).save(tmp_path / "a.png")
    assert colours(decode_image(tmp_path / "a.png", 8, 3)) == {GREEN}


@pytest.mark.parametrize("horizontal", [True, False])
def test_shrinking_keeps_the_middle_too_and_lets_nothing_in_from_beyond(tmp_path, horizontal):
    picture = stripes(horizontal)
    picture.resize((picture.width * 4, picture.height * 4), 0).save(tmp_path / "a.png")
    assert colours(decode_image(tmp_path / "a.png", 16, 3)) == {GREEN}


def test_the_whole_shorter_side_is_kept(tmp_path):
    # Rows 0..3 red, 4..7 green, and the width is cropped: both colours must survive.
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:4], pixels[4:] = RED, GREEN
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 8, 3)
    assert colours(image[:, :4]) == {RED}
    assert colours(image[:, 4:]) == {GREEN}


def test_exif_rotation_is_undone(tmp_path):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4], upright[4:] = 255, 0
    # Orientation 6: the viewer turns the stored picture by 90 degrees clockwise.
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.png", exif=exif)
    image = decode_image(tmp_path / "a.png", 8, 3)
    assert image.tolist() == upright.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(("width", "height"), [(21, 16), (16, 23), (20, 16), (16, 16)])
def test_an_image_whose_shorter_side_fits_keeps_its_very_pixels(tmp_path, width, height):
    """LSUN's case: 341x256. Half a pixel of difference must not blur all images."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 16, 3)
    # dataset_tool.py of StyleGAN2: img[(h - crop) // 2 : (h + crop) // 2, and the same for w]
    top, bottom = (height - 16) // 2, (height + 16) // 2
    left, right = (width - 16) // 2, (width + 16) // 2
    assert image.tolist() == pixels[top:bottom, left:right].transpose(2, 0, 1).tolist()


def test_shrinking_is_a_lanczos_filter_as_wide_as_the_reduction(tmp_path):
    pixels = np.random.default_rng(0).integers(60, 196, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 16, 1)[0].double().numpy()
    # Output pixel i is centred at 4i + 1.5; the kernel is sinc(d) sinc(d/3) of d = distance / 4.
    distance = (np.arange(64)[None] - (4 * np.arange(16)[:, None] + 1.5)) / 4
    weights = np.sinc(distance) * np.sinc(distance / 3) * (abs(distance) < 3)
    weights /= weights.sum(1, keepdims=True)
    assert abs(image - weights @ pixels @ weights.T).max() <= 1


def test_detail_finer_than_the_output_becomes_grey_instead_of_a_pattern(tmp_path):
    checkers = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 32, 1)[0, 2:-2, 2:-2].double()
    assert abs(image - 127.5).max() < 20


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "colour key"])
def test_what_is_transparent_is_shown_on_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 255))
    image.paste((200, 200, 200, 0), (2, 0, 4, 4))
    options = {}
    if mode == "colour key":
        image, options = image.convert("RGB"), {"transparency": (200, 200, 200)}
    elif mode == "P":
        image = image.convert("RGB").convert("P")
        hidden = image.getpixel((3, 0))
        options = {"transparency": bytes(0 if i == hidden else 255 for i in range(256))}
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png", **options)
    shown = decode_image(tmp_path / "a.png", 4, 3)
    assert colours(shown[:, :, :2]) == {(0, 0, 0)}
    assert colours(shown[:, :, 2:]) == {(255, 255, 255)}


def test_cmyk_becomes_rgb_as_print_does(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = decode_image(tmp_path / "a.jpg", 8, 3)[:, 4, 4].tolist()
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("value", [0, 257 * 100, 65535])
@pytest.mark.parametrize("side", [4, 8])
def test_16_bit_grey_keeps_its_upper_byte(tmp_path, value, side):
    Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", side, 1).unique().tolist() == [value // 257]
