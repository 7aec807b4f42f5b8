"""Image files that `ddpm compress` keeps, and those that hold more than it can keep."""

import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.odd_pictures import FRACTION, SHORT, STORED, encoded, ifd, orientation, tiff
from data.png_writer import GREY, RGB, SRGB_PRIMARIES, WIDE_PRIMARIES, chunk, exif, write_png

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
BITS = RNG.integers(0, 2, (8, 8), dtype=np.uint8) * np.uint8(255)
COARSE = np.round(RNG.integers(0, 17, (8, 8)) * 255 / 16).astype(np.uint8)  # 17 levels
ALPHA = np.where(np.arange(64).reshape(8, 8) % 3, 255, 0).astype(np.uint8)
OPAQUE = np.full((8, 8), 255, np.uint8)
FOUR = COLOURS[:2, :2].repeat(4, axis=0).repeat(4, axis=1)  # few colours, for palettes


@dataclass(frozen=True)
class Case:
    """A file and the picture that it shows.

    Args:
        data: its bytes.
        shown: [h, w, 3]; what Pillow makes of the bytes by default.
        channels: of the model: 1, 3, or 17 for the grey one of 17 levels.
        word: of the reason why it is refused.
        near: by how much the 8-bit picture may differ.
    """

    data: bytes
    shown: np.ndarray | None = None
    channels: int = 3
    word: str = ""
    near: int = 0


def rgb(grey):
    """A grey picture in three channels."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def on_white(colours):
    """What ALPHA lets through."""
    return np.where(ALPHA[:, :, None] > 0, colours, 255)


def mode(name, pixels):
    """A PIL image of another mode."""
    return Image.fromarray(pixels).convert(name, dither=Image.Dither.NONE)


def rgba(alpha):
    """COLOURS with an alpha channel."""
    return Image.fromarray(np.dstack([COLOURS, alpha]))


def wide(samples):
    """Of 16 bits."""
    return samples.astype(np.uint16) * 257


def camera(space, index=None):
    """EXIF that names its colour space, and perhaps its interoperability index."""
    told = Image.Exif()
    told[0x8769] = {0xA001: space, **({0xA005: {1: index}} if index else {})}
    return told.tobytes().removeprefix(b"Exif\0\0")


def fractions(tag, *values):
    """An entry of a TIFF."""
    data = b"".join(struct.pack("<LL", value, 100000) for value in values)
    return tag, FRACTION, len(values), data


def code_points(primaries, curve):
    """An AVIF that says these instead of sRGB's."""
    data = encoded(COLOURS, "AVIF")
    assert data.count(AVIF_SRGB) == 1
    return data.replace(AVIF_SRGB, b"colrnclx" + struct.pack(">HH", primaries, curve))


AVIF_SRGB = b"colrnclx" + struct.pack(">HH", 1, 13)
PPM = b"P6 8 8 255\n" + COLOURS.tobytes()
PGM = b"P5 8 8 255\n" + GREYS.tobytes()
PBM = b"P4 8 8\n" + np.packbits(BITS == 0).tobytes()
PLAIN = b"P2 # by hand\n8 8 255\n" + b" ".join(b"%d" % grey for grey in GREYS.flat) + b"\n"

KEPT = {
    "a.jpg": Case(encoded(COLOURS, "JPEG")),
    "a.jpeg": Case(encoded(COLOURS, "JPEG", progressive=True)),
    "a.jpe": Case(encoded(COLOURS, "JPEG", dpi=(300, 300))),
    "grey.jfif": Case(encoded(GREYS, "JPEG")),
    "upright.jpg": Case(encoded(COLOURS, "JPEG", exif=ifd(orientation(1)))),
    "commented.jpg": Case(encoded(COLOURS, "JPEG", comment=b"by me")),
    "a.webp": Case(encoded(COLOURS, "WEBP"), COLOURS),
    "lossy.webp": Case(encoded(Image.fromarray(COLOURS), "WEBP", method=0)),
    "opaque.webp": Case(encoded(rgba(OPAQUE), "WEBP"), COLOURS),
    "a.bmp": Case(encoded(COLOURS, "BMP"), COLOURS),
    "palette.bmp": Case(encoded(mode("P", FOUR), "BMP"), None),
    "bits.bmp": Case(encoded(mode("1", BITS), "BMP"), rgb(BITS)),
    "a.dib": Case(encoded(COLOURS, "DIB"), COLOURS),
    "a.gif": Case(encoded(FOUR, "GIF"), FOUR),
    "grey.gif": Case(encoded(GREYS, "GIF"), rgb(GREYS)),
    "a.tif": Case(encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "a.tiff": Case(tiff(COLOURS, 8, 2, order=">"), COLOURS),
    "grey.tif": Case(encoded(GREYS, "TIFF"), rgb(GREYS)),
    "palette.tif": Case(encoded(mode("P", GREYS), "TIFF"), rgb(GREYS)),
    "bits.tif": Case(encoded(mode("1", BITS), "TIFF", compression="group4"), rgb(BITS)),
    "white-is-0.tif": Case(tiff(255 - GREYS[:, :, None], 8, 0), rgb(GREYS)),
    "opaque.tif": Case(encoded(rgba(OPAQUE), "TIFF"), COLOURS),
    "upright.tif": Case(tiff(COLOURS, 8, 2, orientation(1)), COLOURS),
    "a.avif": Case(encoded(COLOURS, "AVIF")),
    "open-colours.avif": Case(code_points(2, 2)),
    "srgb.jpg": Case(encoded(COLOURS, "JPEG", exif=camera(1, "R98"))),
    "srgb.tif": Case(
        tiff(
            *(COLOURS, 8, 2, fractions(318, *SRGB_PRIMARIES[:2])),
            fractions(319, *SRGB_PRIMARIES[2:]),
        ),
        COLOURS,
    ),
    "a.ppm": Case(PPM, COLOURS),
    "a.pgm": Case(PGM, rgb(GREYS)),
    "a.pbm": Case(PBM, rgb(BITS)),
    "plain.pgm": Case(PLAIN, rgb(GREYS)),
    "blanks-behind.ppm": Case(PPM + b"\n\n", COLOURS),
    "still.apng": Case(encoded(COLOURS, "PNG"), COLOURS),
    "A.PNG": Case(encoded(COLOURS, "PNG"), COLOURS),
    "one-pixel.png": Case(encoded(COLOURS[:1, :1], "PNG"), COLOURS[:1, :1]),
    "thin.png": Case(encoded(COLOURS[:1], "PNG"), COLOURS[:1]),
    "in-colour-modes.png": Case(encoded(rgb(GREYS), "PNG"), rgb(GREYS), 1),
    "opaque-grey.png": Case(encoded(mode("RGBA", GREYS), "PNG"), rgb(GREYS), 1),
    "palette-of-greys.png": Case(encoded(mode("P", GREYS), "PNG"), rgb(GREYS), 1),
    "bits.png": Case(encoded(mode("1", BITS), "PNG"), rgb(BITS), 1),
    "grey.jpg": Case(encoded(GREYS, "JPEG"), None, 1),
    "grey.webp": Case(encoded(rgb(GREYS), "WEBP"), rgb(GREYS), 1),
    "17-levels.png": Case(encoded(COARSE, "PNG"), rgb(COARSE), 17),
    "17-levels-in-colour-modes.png": Case(encoded(rgb(COARSE), "PNG"), rgb(COARSE), 17),
    "17-levels-palette.png": Case(encoded(mode("P", COARSE), "PNG"), rgb(COARSE), 17),
    "17-levels-bits.png": Case(encoded(mode("1", BITS), "PNG"), rgb(BITS), 17),
}


def frames(form):
    """Two pictures in one file, of which this is the first."""
    return encoded(COLOURS, form, save_all=True, append_images=[Image.fromarray(255 - COLOURS)])


def turned(number):
    """COLOURS, lying as `number` says."""
    planes = [STORED[number](COLOURS[:, :, i]) for i in range(3)]
    return np.ascontiguousarray(np.dstack(planes))


def png(samples, colour, depth, *chunks):
    """A PNG with chunks before its pixels."""
    return write_png(samples, colour, depth, before=b"".join(chunks))


GAMMA = chunk(b"gAMA", struct.pack(">L", 100000))
PRIMARIES = chunk(b"cHRM", struct.pack(">8L", *WIDE_PRIMARIES))
UNASSOCIATED = (0x152, SHORT, 1, b"\2\0")
KEY = chunk(b"tRNS", struct.pack(">3H", *COLOURS[4, 4].tolist()))
KEYED = np.where((COLOURS[4, 4] == COLOURS).all(2, keepdims=True), 255, COLOURS)
INK = np.dstack([np.zeros((8, 8, 3), np.uint8), 255 - GREYS])
PROFILE = {"icc_profile": b"a profile of a camera" * 9}
HIDDEN_HALF = rgba(ALPHA)
EXTRA = np.dstack([255 - GREYS, GREYS, ALPHA])


def with_extra(samples, photometric, count):
    """A TIFF with so many samples of unknown meaning."""
    told = (0x152, SHORT, count, bytes(2 * count))
    return tiff(np.dstack([samples, EXTRA[:, :, :count]]), 8, photometric, told)


LYING = {
    f"turned-{i}.png": Case(
        png(turned(i), RGB, 8, chunk(b"eXIf", exif(i))), COLOURS, word="orientation"
    )
    for i in range(2, 9)
}

# More than can be kept: what is shown is the 8-bit picture that --convert stores.
REFUSED = {
    "16-bits.png": Case(png(wide(GREYS[:, :, None]), GREY, 16), rgb(GREYS), 1, "16"),
    "16-bits-rgb.png": Case(png(wide(COLOURS), RGB, 16), COLOURS, word="16", near=1),
    "16-bits-in-rgb-model.png": Case(png(wide(GREYS[:, :, None]), GREY, 16), rgb(GREYS), 3, "16"),
    "16-bits.tif": Case(tiff(wide(GREYS[:, :, None]), 16, 1), rgb(GREYS), 1, "16"),
    "16-bits-big-endian.tif": Case(
        tiff(wide(GREYS[:, :, None]), 16, 1, order=">"), rgb(GREYS), 1, "16"
    ),
    "16-bits-rgb.tif": Case(tiff(wide(COLOURS), 16, 2), COLOURS, word="16", near=1),
    "16-bits.pgm": Case(b"P5 8 8 65535\n" + wide(GREYS).tobytes(), rgb(GREYS), 1, "16"),
    "10-bits.pgm": Case(
        b"P5 8 8 1023\n" + (GREYS.astype(np.uint16) * 4).astype(">u2").tobytes(),
        rgb(GREYS), 1, "bits", 2,
    ),
    "16-bits-rgb.ppm": Case(b"P6 8 8 65535\n" + wide(COLOURS).tobytes(), COLOURS, word="bits"),
    "32-bits.tif": Case(tiff(GREYS[:, :, None].astype(np.uint32), 32, 1), None, 1, "32|mode"),
    "floats.tif": Case(tiff(
        GREYS[:, :, None].astype(np.float32), 32, 1, (0x153, SHORT, 1, b"\3\0")
    ), None, 1, "32|mode|float"),
    "transparent.png": Case(encoded(HIDDEN_HALF, "PNG"), on_white(COLOURS), word="transparen"),
    "transparent-key.png": Case(png(COLOURS, RGB, 8, KEY), KEYED, word="transparen"),
    "transparent.webp": Case(encoded(HIDDEN_HALF, "WEBP"), on_white(COLOURS), word="transparen"),
    "transparent.tif": Case(
        tiff(np.array(HIDDEN_HALF), 8, 2, UNASSOCIATED), on_white(COLOURS), word="transparen"
    ),
    "transparent.avif": Case(encoded(HIDDEN_HALF, "AVIF"), None, word="transparen"),
    "transparent.gif": Case(
        encoded(Image.fromarray(np.dstack([FOUR, ALPHA])), "GIF"), on_white(FOUR),
        word="transparen",
    ),
    "transparent-grey.png": Case(
        encoded(Image.fromarray(np.dstack([GREYS, ALPHA]), "LA"), "PNG"), on_white(rgb(GREYS)), 1,
        "transparen",
    ),
    "moving.png": Case(frames("PNG"), COLOURS, word="frames"),
    "moving.apng": Case(frames("PNG"), COLOURS, word="frames"),
    "moving.gif": Case(frames("GIF"), None, word="frames"),
    "moving.webp": Case(frames("WEBP"), COLOURS, word="frames"),
    "moving.avif": Case(frames("AVIF"), None, word="frames"),
    "pages.tif": Case(frames("TIFF"), COLOURS, word="frames"),
    "two-views.mpo": Case(frames("MPO"), None, word="frames"),
    "two-views.jpg": Case(frames("MPO"), None, word="frames"),
    "profile.png": Case(encoded(COLOURS, "PNG", **PROFILE), COLOURS, word="profile"),
    "profile.jpg": Case(encoded(COLOURS, "JPEG", **PROFILE), None, word="profile"),
    "profile.webp": Case(encoded(COLOURS, "WEBP", **PROFILE), COLOURS, word="profile"),
    "profile.tif": Case(encoded(COLOURS, "TIFF", **PROFILE), COLOURS, word="profile"),
    "profile.avif": Case(encoded(COLOURS, "AVIF", **PROFILE), None, word="profile"),
    **{
        f"{n}-extra-samples.tif": Case(with_extra(COLOURS, 2, n), COLOURS, word="extra samples")
        for n in (1, 2, 3)
    },
    "extra-sample-grey.tif": Case(with_extra(GREYS, 1, 1), rgb(GREYS), 1, "extra samples"),
    "adobe-rgb.jpg": Case(encoded(COLOURS, "JPEG", exif=camera(2)), word="Adobe RGB"),
    "adobe-rgb-by-index.jpg": Case(
        encoded(COLOURS, "JPEG", exif=camera(65535, "R03")), word="Adobe RGB"
    ),
    "white-point.tif": Case(
        tiff(COLOURS, 8, 2, fractions(318, 34570, 35850)), COLOURS, word="chromaticit"
    ),
    "primaries.tif": Case(
        tiff(COLOURS, 8, 2, fractions(319, *WIDE_PRIMARIES[2:])), COLOURS, word="chromaticit"
    ),
    "wide.avif": Case(code_points(9, 13), None, word="colour space"),
    "bright.avif": Case(code_points(1, 16), None, word="colour space"),
    "two.ppm": Case(PPM + PPM, COLOURS, word="more pictures"),
    "two.pgm": Case(PGM + b"\n" + PGM, rgb(GREYS), 1, "more pictures"),
    "two.pbm": Case(PBM + PBM, rgb(BITS), 1, "more pictures"),
    "two-plain.pgm": Case(PLAIN + PLAIN, rgb(GREYS), 1, "more pictures"),
    "more-behind.ppm": Case(PPM + b"more", COLOURS, word="behind"),
    "gamma.png": Case(png(COLOURS, RGB, 8, GAMMA), COLOURS, word="gamma"),
    "primaries.png": Case(png(COLOURS, RGB, 8, PRIMARIES), COLOURS, word="chromaticit|primar"),
    **LYING,
    "turned.jpg": Case(encoded(COLOURS, "JPEG", exif=ifd(orientation(3))), None, 3, "orientation"),
    "turned.webp": Case(
        encoded(turned(6), "WEBP", exif=ifd(orientation(6))), COLOURS, word="orientation"
    ),
    "turned.tif": Case(tiff(turned(8), 8, 2, orientation(8)), COLOURS, word="orientation"),
    "cmyk.tif": Case(tiff(INK, 8, 5), rgb(GREYS), word="CMYK", near=2),
    "cmyk.jpg": Case(encoded(mode("CMYK", COLOURS), "JPEG"), None, word="CMYK"),
    "lab.tif": Case(encoded(mode("LAB", COLOURS), "TIFF"), None, word="LAB|profile"),
    "ycbcr.tif": Case(encoded(mode("YCbCr", COLOURS), "TIFF"), None, word="YCbCr"),
    "colours-in-a-grey-model.png": Case(encoded(COLOURS, "PNG"), None, 1, "colours"),
    "colours-in-a-grey-model.gif": Case(encoded(FOUR, "GIF"), None, 1, "colours"),
    "256-levels-of-17.png": Case(encoded(GREYS, "PNG"), rgb(GREYS), 17, "17", 8),
    "several-reasons.png": Case(
        png(wide(np.dstack([COLOURS, ALPHA])), 6, 16, GAMMA), on_white(COLOURS), 3, "16", 1
    ),
}  # fmt: skip
# No picture at all, or one that cannot be seen here.
UNREADABLE = {
    "empty.png": b"",
    "text.png": b"not an image",
    "cut.png": encoded(COLOURS, "PNG")[:90],
    "cut.jpg": encoded(RNG.integers(0, 256, (40, 40), dtype=np.uint8), "JPEG")[:400],
    "cut.webp": encoded(COLOURS, "WEBP")[:60],
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n",
    "page.jpg": b"<!DOCTYPE html><html></html>",
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a.jxl": b"\xff\x0a",
    "a.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a.cr2": b"II*\0\x10\0\0\0CR\2\0",
    "a.psd": b"8BPS\0\1",
}
