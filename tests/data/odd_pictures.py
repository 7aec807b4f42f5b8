"""Image files whose metadata are damaged in every way, and a TIFF writer for uncommon pixels."""

import io
import struct

import numpy as np
from PIL import Image

FORMS = ("PNG", "JPEG", "WEBP")
OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}
ALL_FORMS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "PPM", "MPO")


def encoded(image, form, **options):
    """The bytes of an image, an array or a PIL image."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    if form == "JPEG" and "exif" in options:
        options["exif"] = b"Exif\0\0" + options["exif"]
    picture.save(buffer, form, **OPTIONS.get(form, {}), **options)
    return buffer.getvalue()


def quarters():
    """16x16 pixels in four quarters of different grey: each turn and mirror image is another."""
    return np.kron(np.uint8([[0, 80], [160, 240]]), np.ones((8, 8), np.uint8))


def crossed():
    """24x24 pixels, in nine squares, that no turn and no mirror changes."""
    squares = np.uint8([[0, 90, 0], [90, 200, 90], [0, 90, 0]])
    return np.kron(squares, np.ones((8, 8), np.uint8))


# How a picture is stored, by its orientation: EXIF says where row 0 and column 0 belong.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a[:, ::-1].T,
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a[::-1].T,
}


def ifd(*entries, order="<", after=b"", following=0):
    """A TIFF header and a directory of (tag, type, count, data); `after` is behind everything."""
    start = 8 + 2 + 12 * len(entries) + 4
    body, pool = struct.pack(order + "H", len(entries)), b""
    for tag, kind, count, data in sorted(entries):
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place, pool = struct.pack(order + "L", start + len(pool)), pool + data
        body += struct.pack(order + "HHL", tag, kind, count) + place
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return head + body + struct.pack(order + "L", following) + pool + after


def orientation(number, order="<"):
    """The directory's entry."""
    return (0x112, 3, 1, struct.pack(order + "H", number))


LIES = orientation(6)  # as a telephone held upright stores it
BYTES, TEXT, SHORT, LONG, FRACTION, SBYTE, SSHORT, FLOAT, LONG8 = 1, 2, 3, 4, 5, 6, 8, 11, 16
DESCRIPTION, RESOLUTION, UNIT, EXIF, GPS, INTEROP = 0x10E, 0x11A, 0x128, 0x8769, 0x8825, 0xA005
# Beside an orientation that can be read.
DAMAGED_TAGS = {
    "description-is-a-fraction": (DESCRIPTION, FRACTION, 1, bytes(8)),
    "description-is-a-float": (DESCRIPTION, FLOAT, 1, bytes(4)),
    "resolution-is-bytes": (RESOLUTION, BYTES, 1, b"\1"),
    "resolution-is-text": (RESOLUTION, TEXT, 1, b"A"),
    "resolution-is-negative": (RESOLUTION, SBYTE, 1, b"\xff"),
    "resolution-is-no-number": (RESOLUTION, FLOAT, 1, b"\xff" * 4),
    "resolution-is-infinite": (RESOLUTION, FLOAT, 1, b"\0\0\x80\x7f"),
    "resolution-is-72/0": (RESOLUTION, FRACTION, 1, struct.pack("<LL", 72, 0)),
    "unit-is-bytes": (UNIT, BYTES, 1, b"\2"),
    "unit-is-huge": (UNIT, LONG, 1, b"\xff" * 4),
    "unit-of-no-entries": (UNIT, SHORT, 0, b""),
    "place-of-exif-is-negative": (EXIF, SSHORT, 1, b"\x80\x80"),
    "place-of-exif-is-huge": (EXIF, LONG8, 1, b"\xff" * 8),
    "place-of-exif-is-text": (EXIF, TEXT, 4, b"here"),
    "place-of-exif-is-here": (EXIF, LONG, 1, struct.pack("<L", 8)),
    "place-of-gps-is-beyond": (GPS, LONG, 1, b"\xff\xff\xff\x7f"),
    "place-of-gps-is-negative": (GPS, SBYTE, 1, b"\xff"),
    "interoperability-is-huge": (INTEROP, LONG8, 1, b"\xff" * 8),
    "unknown-type": (0x1234, 77, 1, b"\1"),
    "more-data-than-the-file": (0x1234, BYTES, 2**31, b"\1\1\1\1\1"),
}
# Nobody knows what they mean; the picture looks the same in every way.
ODD_EXIF = {
    **{
        f"orientation-{name}": ifd((0x112, kind, count, data))
        for name, kind, count, data in (
            ("0", SHORT, 1, bytes(2)),
            ("9", SHORT, 1, b"\t\0"),
            ("65535", SHORT, 1, b"\xff\xff"),
            ("is-text", TEXT, 2, b"6\0"),
            ("is-bytes", BYTES, 1, b"\6"),
            ("is-long", LONG, 1, b"\6\0\0\0"),
            ("is-6/1", FRACTION, 1, struct.pack("<LL", 6, 1)),
            ("is-6/0", FRACTION, 1, struct.pack("<LL", 6, 0)),
            ("is-0/0", FRACTION, 1, bytes(8)),
            ("is-no-number", FLOAT, 1, b"\xff" * 4),
            ("is-two", SHORT, 2, b"\6\0\3\0"),
            ("is-none", SHORT, 0, b""),
            ("is-negative", SBYTE, 1, b"\xff"),
        )
    },
    "one-byte": b"I",
    "half-a-header": b"II*\0",
    "another-header": b"XX*\0" + bytes(20),
    "another-version": b"II\x2b\0" + b"\xff" * 30,
    "directory-beyond": b"II*\0\xff\xff\xff\xff",
    "directory-of-65535-entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(40),
    "directory-cut": ifd(LIES)[:14],
    "directory-of-no-entries": ifd(),
    "next-directory-is-this": ifd(LIES, following=8),
    "next-directory-beyond": ifd(LIES, following=2**32 - 1),
    "twice": ifd(LIES) * 2,
    "header-twice": b"Exif\0\0Exif\0\0" + ifd(LIES),
    "zeros": bytes(500),
    "junk": b"junk" * 99,
}


def segment(marker, data):
    """A JPEG's segment."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


MP = b"MPF\0"
# What stands at the beginning of a JPEG, behind its first two bytes.
SEGMENTS = {
    "exif-empty": segment(0xE1, b"Exif\0\0"),
    "exif-in-two-parts": segment(0xE1, b"Exif\0\0" + ifd(LIES)[:12]) + segment(0xE1, b"Exif\0\0"),
    "jfif-short": segment(0xE0, b"JFIF"),
    "jfif-without-density": segment(0xE0, b"JFIF\0\1\1"),
    "jfif-of-no-density": segment(0xE0, b"JFIF\0\1\1\1" + bytes(6)),
    "profile-empty": segment(0xE2, b"ICC_PROFILE\0"),
    "profile-part-1-of-5": segment(0xE2, b"ICC_PROFILE\0\1\5data"),
    "profile-part-0-of-0": segment(0xE2, b"ICC_PROFILE\0\0\0"),
    "several-pictures-junk": segment(0xE2, MP + b"junk" * 9),
    "several-pictures-empty": segment(0xE2, MP),
    "several-pictures-no-entries": segment(0xE2, MP + ifd()),
    "several-pictures-no-list": segment(0xE2, MP + ifd((0xB001, LONG, 1, b"\2\0\0\0"))),
    "several-pictures-short-list": segment(
        0xE2, MP + ifd((0xB001, LONG, 1, b"\2\0\0\0"), (0xB002, 7, 16, bytes(16)))
    ),
    "several-pictures-of-text": segment(0xE2, MP + ifd((0xB001, TEXT, 2, b"2\0"))),
    "flashpix": segment(0xE2, b"FPXR\0"),
    "photoshop-short": segment(0xED, b"Photoshop 3.0\x008BIM"),
    "photoshop-cut": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "photoshop-resolution-short": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02\0\0"),
    "adobe-empty": segment(0xEE, b"Adobe"),
    "adobe-short": segment(0xEE, b"Adobe\0\x64\0\0"),
    "comment-empty": segment(0xFE, b""),
    "comment-not-text": segment(0xFE, bytes(range(256))),
    "xmp-not-xml": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x <y"),
    "xmp-orientation-x": segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0tiff:Orientation="x"'),
    "unknown": segment(0xEB, b"anything"),
    "hundreds": segment(0xE5, b"a") * 300,
    "bytes-of-filling": b"\xff" * 9 + segment(0xFE, b"a")[1:],
}


def tiff(samples, bits, photometric, *more, order="<"):
    """An uncompressed TIFF of samples [h, w, planes].

    Args:
        samples: as they are stored, in an array of their own type.
        bits: of a sample.
        photometric: 0 or 1 grey (of white or black zero), 2 RGB, 5 CMYK, 6 YCbCr, 8 L*a*b*.
        more: entries of its directory.
        order: of the bytes.
    """
    height, width, planes = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()

    def short(tag, *values):
        return tag, SHORT, len(values), struct.pack(f"{order}{len(values)}H", *values)

    def build(start):
        return ifd(
            *(short(0x100, width), short(0x101, height), short(0x102, *[bits] * planes)),
            *(short(0x103, 1), short(0x106, photometric), short(0x115, planes)),
            *(short(0x116, height), short(0x11C, 1)),
            (0x111, LONG, 1, struct.pack(order + "L", start)),
            (0x117, LONG, 1, struct.pack(order + "L", len(data))),
            *more,
            order=order,
        )

    return build(len(build(0))) + data
