"""Unusual images: whatever stands beside the pixels, and however they are stored, they are used."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from data.odd_pictures import (
    ALL_FORMS,
    DAMAGED_TAGS,
    FORMS,
    LIES,
    ODD_EXIF,
    SEGMENTS,
    SHORT,
    STORED,
    crossed,
    encoded,
    ifd,
    orientation,
    quarters,
    tiff,
)
from data.png_writer import GREY, RGB, chunk, write_png
from ddpm.data.folder import image_folder


@pytest.fixture
def shown(tmp_path):
    """A function: what a folder of one file shows, [c, h, w] of int64."""

    def show(data, size=16, channels=1):
        (tmp_path / "a.png").write_bytes(data)  # Pillow looks at the content, not the name
        return image_folder(tmp_path, size, channels)[torch.tensor([0])][0].long()

    return show


def equal(image, expected, tolerance=0):
    """Whether every channel shows the grey levels [h, w]."""
    return int((image - torch.from_numpy(np.array(expected, int))).abs().max()) <= tolerance


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("form", [*FORMS, "TIFF"])
def test_a_picture_is_shown_upright(form, number, shown):
    stored = STORED[number](quarters()).copy()
    for order in "<>":
        if form == "TIFF":
            data = tiff(stored[:, :, None], 8, 1, orientation(number, order), order=order)
        else:
            data = encoded(stored, form, exif=ifd(orientation(number, order), order=order))
        assert equal(shown(data), quarters(), 3 * (form == "JPEG"))


@pytest.mark.parametrize("name", DAMAGED_TAGS)
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_is_upright_whatever_else_its_metadata_say(form, name, shown):
    stored = STORED[6](quarters()).copy()
    data = encoded(stored, form, exif=ifd(LIES, DAMAGED_TAGS[name]))
    assert equal(shown(data), quarters(), 3 * (form == "JPEG"))


@pytest.mark.parametrize("name", ODD_EXIF)
@pytest.mark.parametrize("form", FORMS)
def test_metadata_that_nobody_understands_do_not_matter(form, name, shown):
    data = encoded(crossed(), form, exif=ODD_EXIF[name])
    assert equal(shown(data, size=24), crossed(), 3 * (form == "JPEG"))


RAISED = [
    *(struct.error, ZeroDivisionError, TypeError, ValueError, KeyError, IndexError, EOFError),
    *(AttributeError, OverflowError, RecursionError, AssertionError, SyntaxError, OSError),
    *(NotImplementedError, RuntimeError, StopIteration, BufferError),
]


def raising(error):
    """A function of any arguments that fails so."""

    def fail(*_, **__):
        raise error("simulated")

    return fail


@pytest.mark.parametrize("error", RAISED)
def test_whatever_goes_wrong_with_metadata_the_picture_is_used(error, shown, monkeypatch):
    monkeypatch.setattr(Image.Exif, "load", raising(error))
    assert equal(shown(encoded(quarters(), "PNG", exif=ifd(orientation(1)))), quarters())


@pytest.mark.parametrize("name", SEGMENTS)
def test_what_stands_before_a_jpegs_pixels_does_not_matter(name, shown):
    clean = encoded(quarters(), "JPEG")
    data = clean[:2] + SEGMENTS[name] + clean[2:]
    assert torch.equal(shown(data), shown(clean))


def beside(form, **options):
    """A picture with something beside it."""
    return encoded(quarters(), form, **options)


SIDE = quarters()[:, :, None]
ODD_FILES = {
    "jpeg-and-more-bytes": beside("JPEG") + b"more" * 99,
    "jpeg-and-another": beside("JPEG") * 2,
    "jpeg-progressive": beside("JPEG", progressive=True),
    "jpeg-restarting": beside("JPEG", restart_marker_blocks=1),
    "jpeg-profile-is-junk": beside("JPEG", icc_profile=b"junk" * 9),
    "png-profile-is-junk": beside("PNG", icc_profile=b"junk" * 9),
    "webp-profile-is-junk": beside("WEBP", icc_profile=b"junk" * 9),
    "webp-xmp-is-junk": beside("WEBP", xmp=b"junk" * 9),
    "webp-and-more-bytes": beside("WEBP") + b"more" * 9,
    "gif-comment": beside("GIF", comment=b"c" * 600),
    "gif-without-an-end": beside("GIF")[:-1],
    "gif-and-more-bytes": beside("GIF") + b"more" * 9,
    "gif-interlaced": beside("GIF", interlace=1),
    "bmp-and-more-bytes": beside("BMP") + b"more" * 9,
    "bmp-of-no-resolution": beside("BMP", dpi=(0, 0)),
    "ppm-comments": b"P5 # one\n# two\n16\n#three\n16 255\n" + quarters().tobytes(),
    "ppm-and-another": b"P5 16 16 255\n" + quarters().tobytes() + b"P5 1 1 255\n\0",
    "tiff-resolution-0/0": tiff(SIDE, 8, 1, (0x11A, 5, 1, bytes(8)), (0x128, SHORT, 1, b"\2\0")),
    "tiff-resolution-is-text": tiff(SIDE, 8, 1, (0x11A, 2, 1, b"A")),
    "tiff-unknown-tag": tiff(SIDE, 8, 1, (0x9999, 7, 4, b"junk")),
    "tiff-unknown-type": tiff(SIDE, 8, 1, (0x9999, 77, 4, b"junk")),
    "tiff-tag-beyond": tiff(SIDE, 8, 1, (0x13B, 2, 9999, b"\xff\xff\xff\x7f")),
    "tiff-profile-is-junk": tiff(SIDE, 8, 1, (0x8773, 7, 9, b"junk" * 3)),
    "tiff-xmp-is-junk": tiff(SIDE, 8, 1, (0x2BC, 1, 9, b"junk" * 3)),
    "tiff-exif-beyond": tiff(SIDE, 8, 1, (0x8769, 4, 1, b"\xff\xff\xff\x7f")),
    "tiff-software-is-a-number": tiff(SIDE, 8, 1, (0x131, 3, 1, b"\1\0")),
    "tiff-resolution-twice": tiff(SIDE, 8, 1, (0x128, SHORT, 2, b"\2\0\2\0")),
    "tiff-and-more-bytes": tiff(SIDE, 8, 1) + b"more" * 9,
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_file_with_something_odd_in_it_shows_its_picture(name, shown):
    assert equal(shown(ODD_FILES[name]), quarters(), 3 * name.startswith("jpeg"))


def wide(samples):
    """Of 16 bits: the same greys."""
    return samples.astype(np.uint16) * 257


BLACK_OR_WHITE = (quarters() > 100) * np.uint8(255)
COLOUR = np.repeat(SIDE, 3, axis=2)
INK = np.concatenate([np.zeros_like(COLOUR), 255 - SIDE], axis=2)
NEUTRAL = np.concatenate([SIDE, np.full_like(COLOUR[:, :, :2], 128)], axis=2)
UNUSED = np.concatenate([COLOUR, SIDE], axis=2)  # a fourth sample that says nothing
TEN_BITS = (quarters().astype(np.uint16) * 4 + 1).astype(">u2").tobytes()
MODES = {
    "tiff-1": encoded(Image.fromarray(BLACK_OR_WHITE).convert("1"), "TIFF"),
    "tiff-palette": encoded(Image.fromarray(quarters()).convert("P"), "TIFF"),
    "tiff-lzw": beside("TIFF", compression="tiff_lzw"),
    "tiff-deflate": beside("TIFF", compression="tiff_adobe_deflate"),
    "tiff-fax": encoded(Image.fromarray(BLACK_OR_WHITE).convert("1"), "TIFF", compression="group4"),
    "tiff-jpeg": encoded(COLOUR, "TIFF", compression="jpeg"),
    "tiff-big-endian": tiff(SIDE, 8, 1, order=">"),
    "tiff-white-is-0": tiff(255 - SIDE, 8, 0),
    "tiff-16": tiff(wide(SIDE), 16, 1),
    "tiff-16-big-endian": tiff(wide(SIDE), 16, 1, order=">"),
    "tiff-16-white-is-0": tiff(65535 - wide(SIDE), 16, 0),
    "tiff-rgb": tiff(COLOUR, 8, 2),
    "tiff-rgb-16": tiff(wide(COLOUR), 16, 2),
    "tiff-rgb-16-big-endian": tiff(wide(COLOUR), 16, 2, order=">"),
    "tiff-rgb-unused": tiff(UNUSED, 8, 2, (0x152, SHORT, 1, bytes(2))),
    "tiff-cmyk": tiff(INK, 8, 5),
    "tiff-cmyk-16": tiff(wide(INK), 16, 5),
    "tiff-ycbcr": tiff(NEUTRAL, 8, 6),
    "tiff-lab": encoded(Image.fromarray(COLOUR).convert("LAB"), "TIFF"),
    "jpeg-cmyk": encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "pgm": b"P5 16 16 255\n" + quarters().tobytes(),
    "pgm-16": b"P5 16 16 65535\n" + wide(SIDE).tobytes(),
    "pgm-10-bits": b"P5 16 16 1023\n" + TEN_BITS,
    "pgm-to-240": b"P5 16 16 240\n" + (quarters() * 0.9412).round().astype(np.uint8).tobytes(),
    "pgm-in-digits": b"P2 16 16 255\n" + " ".join(map(str, quarters().flatten())).encode(),
    "ppm-16": b"P6 16 16 65535\n" + wide(COLOUR).tobytes(),
    "ppm-in-digits": b"P3 16 16 255\n" + " ".join(map(str, COLOUR.flatten())).encode(),
    "pbm": b"P4 16 16\n" + np.packbits(BLACK_OR_WHITE == 0).tobytes(),
    "bmp-1": encoded(Image.fromarray(BLACK_OR_WHITE).convert("1"), "BMP"),
    "bmp-palette": encoded(Image.fromarray(quarters()).convert("P"), "BMP"),
    "bmp-without-a-file-header": beside("DIB"),
    "gif": beside("GIF"),
    "avif": beside("AVIF", quality=100),
    "avif-rgb": encoded(COLOUR, "AVIF", quality=100),
}
LOSSY = ("jpeg", "lab", "avif", "10-bits", "to-240", "cmyk")


@pytest.mark.parametrize("name", MODES)
def test_greys_are_the_same_in_every_mode(name, shown):
    expected = BLACK_OR_WHITE if name.endswith(("-1", "fax", "pbm")) else quarters()
    tolerance = 4 if any(word in name for word in LOSSY) else 0
    for channels in (1, 3):
        assert equal(shown(MODES[name], channels=channels), expected, tolerance)


HIDDEN = np.where(np.arange(16) < 8, 0, 200).astype(np.uint8) * np.ones((16, 1), np.uint8)
ALPHA = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8) * np.ones((16, 1), np.uint8)
SEEN = 255 - ALPHA  # black, and white where nothing is
RGBA = Image.fromarray(np.dstack([HIDDEN] * 3 + [ALPHA]))
GREY_A = Image.fromarray(HIDDEN).convert("LA")
GREY_A.putalpha(Image.fromarray(ALPHA))
PREMULTIPLIED = np.dstack([0 * HIDDEN] * 3 + [ALPHA])
KEYED = wide(HIDDEN[:, :, None])
KEY = struct.pack(">H", 200 * 257)
TRANSPARENT = {
    "png-rgb": encoded(RGBA, "PNG"),
    "png-grey": encoded(GREY_A, "PNG"),
    "png-grey-16-key": write_png(KEYED, GREY, 16, before=chunk(b"tRNS", KEY)),
    "png-rgb-16-key": write_png(
        np.repeat(KEYED, 3, axis=2), RGB, 16, before=chunk(b"tRNS", KEY * 3)
    ),
    "webp": encoded(RGBA, "WEBP"),
    "gif": encoded(RGBA, "GIF"),
    "tiff-rgb": encoded(RGBA, "TIFF"),
    "tiff-grey": encoded(GREY_A, "TIFF"),
    "tiff-rgb-16": tiff(wide(np.array(RGBA)), 16, 2, (0x152, SHORT, 1, b"\2\0")),
    "tiff-premultiplied": tiff(PREMULTIPLIED, 8, 2, (0x152, SHORT, 1, b"\1\0")),
    "avif": encoded(RGBA, "AVIF", quality=100),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_transparent_shows_white(name, shown):
    for channels in (1, 3):
        assert equal(shown(TRANSPARENT[name], channels=channels), SEEN, 4 * (name == "avif"))


@pytest.mark.parametrize("name", TRANSPARENT)
def test_a_hidden_colour_does_not_come_in_by_shrinking(name, shown):
    half = shown(TRANSPARENT[name], size=8)
    white = Image.fromarray(SEEN).resize((8, 8), Image.Resampling.LANCZOS)
    assert equal(half, white, 4 if name == "avif" else 1)


SHAPES = [(1, 1), (1, 9), (9, 1), (2, 3), (1, 5000), (5000, 1), (3, 1000)]


@pytest.mark.parametrize("form", ALL_FORMS)
def test_a_picture_of_any_shape_fills_the_square(form, shown):
    for size in SHAPES:
        data = encoded(Image.new("RGB", size, (90, 90, 90)), form)
        assert equal(shown(data, size=4), np.full((4, 4), 90), 4)
