"""The members of a set like PngSuite: every kind of pixel, way to store, transparency and chunk."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.png_writer import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    PLANES,
    RGB,
    RGB_ALPHA,
    SRGB_PRIMARIES,
    WIDE_PRIMARIES,
    chunk,
    colours,
    exif,
    frame,
    noise,
    picture,
    scanlines,
    write_png,
)


@dataclass(frozen=True)
class Member:
    """A file of the suite.

    Args:
        data: its bytes.
        kept: whether its picture can be kept; None where both are right.
        turns: quarter turns to the left that make it upright.
    """

    data: bytes
    kept: bool | None
    turns: int = 0


def _pixel_kinds() -> dict[str, Member]:
    """Every colour type in every depth, sizes, filters and ways to store."""
    names = {
        "grey": (GREY, (1, 2, 4, 8, 16)),
        "rgb": (RGB, (8, 16)),
        "palette": (PALETTE, (1, 2, 4, 8)),
        "grey-alpha": (GREY_ALPHA, (8, 16)),
        "rgb-alpha": (RGB_ALPHA, (8, 16)),
    }
    members = {}
    for name, (colour, depths) in names.items():
        for depth in depths:
            kept = depth <= 8 and colour not in (GREY_ALPHA, RGB_ALPHA)
            members[f"{name}-{depth}"] = Member(picture(colour, depth), kept)
            data = picture(colour, depth, interlaced=True)
            members[f"{name}-{depth}-interlaced"] = Member(data, kept)
    for size in (*range(1, 10), 16, 17):
        colour, depth = [(PALETTE, 1), (PALETTE, 2), (PALETTE, 4), (RGB, 8)][size % 4]
        members[f"size-{size}"] = Member(picture(colour, depth, size), True)
        data = picture(colour, depth, size, interlaced=True)
        members[f"size-{size}-interlaced"] = Member(data, True)
    for height, width in ((1, 9), (9, 1), (3, 7), (7, 3)):
        for colour, depth in ((GREY, 1), (RGB, 8)):
            name = f"size-{height}x{width}-{'rgb' if colour else 'grey'}-interlaced"
            members[name] = Member(picture(colour, depth, height, width, interlaced=True), True)
    for kind in range(5):
        for name, colour in (("grey", GREY), ("rgb", RGB)):
            data = picture(colour, 8, filters=(kind,))
            members[f"filter-{kind}-{name}"] = Member(data, True)
    members["filter-all-grey-4"] = Member(picture(GREY, 4, filters=(4, 2, 0, 3, 1)), True)
    members["filter-4-rgb-16"] = Member(picture(RGB, 16, filters=(4,)), False)
    for level in (0, 1, 9):
        members[f"zlib-level-{level}"] = Member(picture(RGB, 8, level=level), True)
    members["zlib-window-512"] = Member(picture(RGB, 8, wbits=9), True)
    for piece in (1, 3, 100):
        members[f"idat-of-{piece}-grey"] = Member(picture(GREY, 8, piece=piece), True)
    members["idat-of-1-rgb-16"] = Member(picture(RGB, 16, piece=1), False)
    members["idat-empty"] = Member(picture(GREY, 8, piece=9, before=chunk(b"IDAT")), True)
    return members


def _transparency() -> dict[str, Member]:
    """Keys, palettes and alpha, seen and unseen."""

    def key(*values):
        return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))

    members = {}
    for depth in (1, 2, 4, 8, 16):
        samples = noise(1, depth)
        hidden = int(samples[2, 3, 0])
        members[f"key-grey-{depth}"] = Member(
            write_png(samples, GREY, depth, before=key(hidden)), False
        )
    one = np.full((8, 8, 1), 200)
    members["key-grey-unused"] = Member(write_png(one, GREY, 8, before=key(7)), True)
    for depth in (8, 16):
        samples = noise(3, depth)
        data = write_png(samples, RGB, depth, before=key(*samples[2, 3].tolist()))
        members[f"key-rgb-{depth}"] = Member(data, False)
        if depth == 16:  # of which Pillow keeps the upper byte: what is close is the same
            continue
        # The colours around it differ from the key in one sample, by one.
        samples[:] = 10 << (depth - 8)
        samples[:, 4:, 1] += 1
        data = write_png(samples, RGB, depth, before=key(*samples[0, 0].tolist()))
        members[f"key-rgb-{depth}-close"] = Member(data, False)
    members["key-rgb-unused"] = Member(picture(RGB, 8, before=key(1, 2, 3)), True)
    close = np.full((8, 8, 1), 0x4D4D)
    close[:, 4:] += 1
    members["key-grey-16-close"] = Member(write_png(close, GREY, 16, before=key(0x4D4D)), False)
    for depth in (1, 2, 4, 8):
        alphas = np.random.default_rng(depth).integers(0, 256, 2**depth, dtype=np.uint8).tobytes()
        for name, trns in (("alphas", alphas), ("first-hidden", b"\0"), ("opaque", b"\xff")):
            shown = depth == 8 and name == "first-hidden"  # one of 256 may not occur
            data = picture(PALETTE, depth, before=chunk(b"tRNS", trns))
            members[f"palette-{depth}-{name}"] = Member(data, None if shown else name == "opaque")
    samples = noise(1, 2) % 3  # so that the fourth colour, which is hidden, is nowhere
    data = write_png(
        samples, PALETTE, 2, palette=colours(4), before=chunk(b"tRNS", b"\xff\xff\xff\0")
    )
    members["palette-hidden-unused"] = Member(data, True)
    for name, colour, depth in (
        *(("grey-alpha", GREY_ALPHA, 8), ("rgb-alpha", RGB_ALPHA, 8)),
        ("rgb-alpha", RGB_ALPHA, 16),
    ):
        samples = noise(PLANES[colour], depth)
        samples[:, :, -1] = 2**depth - 1
        data = write_png(samples, colour, depth)
        members[f"{name}-{depth}-opaque"] = Member(data, depth == 8)
        samples[0, 0, -1] -= 1
        data = write_png(samples, colour, depth)
        members[f"{name}-{depth}-one-pixel-nearly-opaque"] = Member(data, False)
    return members


def _chunks() -> dict[str, Member]:
    """What stands beside the pixels."""

    def numbers(kind, form, *values):
        return chunk(kind, struct.pack(">" + form, *values))

    members: dict[str, Member] = {}

    def add(name, kept, before=b"", after=b"", make: Callable = picture, **options):
        colour, depth = options.pop("pixels", (RGB, 8))
        members[name] = Member(make(colour, depth, first=before, after=after, **options), kept)

    for gamma in (35000, 55000, 70000, 100000, 250000):
        add(f"gamma-{gamma}", False, numbers(b"gAMA", "L", gamma))
    add("gamma-100000-grey", False, numbers(b"gAMA", "L", 100000), pixels=(GREY, 8))
    add("gamma-100000-palette", False, numbers(b"gAMA", "L", 100000), pixels=(PALETTE, 4))
    add("gamma-of-srgb", True, numbers(b"gAMA", "L", 45455))
    add("primaries-of-srgb", True, numbers(b"cHRM", "8L", *SRGB_PRIMARIES))
    add("primaries-wide", False, numbers(b"cHRM", "8L", *WIDE_PRIMARIES))
    add("primaries-wide-palette", False, numbers(b"cHRM", "8L", *WIDE_PRIMARIES), pixels=(3, 4))
    for intent in range(4):
        add(f"srgb-intent-{intent}", True, numbers(b"sRGB", "B", intent))
    both = numbers(b"gAMA", "L", 45455) + numbers(b"cHRM", "8L", *SRGB_PRIMARIES)
    add("srgb-and-its-gamma-and-primaries", True, both + numbers(b"sRGB", "B", 0))
    add("srgb-and-another-gamma", None, numbers(b"gAMA", "L", 99999) + numbers(b"sRGB", "B", 0))
    add("profile", False, chunk(b"iCCP", b"mine\0\0" + zlib.compress(b"profile" * 30)))
    add("coding-of-hdr", None, chunk(b"cICP", bytes([9, 16, 0, 1])))
    for place in ("before", "after"):
        texts = {
            "text": chunk(b"tEXt", b"Title\0PngSuite"),
            "text-compressed": chunk(b"zTXt", b"Copyright\0\0" + zlib.compress(b"mine " * 99)),
            "text-utf-8": chunk(b"iTXt", "Autor\0\0\0de\0Autor\0Übung".encode()),
            "exif-upright": chunk(b"eXIf", exif(1)),
            "time": numbers(b"tIME", "HBBBBB", 2000, 2, 29, 23, 59, 60),
            "private": chunk(b"prVt", b"anything"),
        }
        for name, text in texts.items():
            add(f"{name}-{place}", True, **{place: text})
    for orientation, turns in ((3, 2), (6, 3), (8, 1)):
        data = picture(RGB, 8, before=chunk(b"eXIf", exif(orientation)))
        members[f"exif-{orientation}"] = Member(data, False, turns)
    add("exif-6-after", False, after=chunk(b"eXIf", exif(6, "<")))
    members["exif-6-after"] = Member(members["exif-6-after"].data, False, 3)
    add("background", True, numbers(b"bKGD", "3H", 255, 0, 128))
    add("background-grey", True, numbers(b"bKGD", "H", 170), pixels=(GREY, 8))
    add("background-alpha", False, numbers(b"bKGD", "3H", 0, 0, 0), pixels=(RGB_ALPHA, 8))
    for name, x, y, unit in (("square", 2835, 2835, 1), ("wide", 4, 1, 0), ("tall", 1, 4, 0)):
        add(f"pixels-{name}", True, numbers(b"pHYs", "LLB", x, y, unit))
    add("bits-5", True, chunk(b"sBIT", b"\5\5\5"))
    add("bits-13-of-16", False, chunk(b"sBIT", b"\r\r\r"), pixels=(RGB, 16))
    entry = struct.pack(">BBBBH", 1, 2, 3, 255, 9)
    add("palette-suggested", True, chunk(b"sPLT", b"six\0\x08" + entry * 6))
    add("palette-suggested-plte", True, palette=colours(9))
    add("palette-suggested-plte-alpha", False, pixels=(RGB_ALPHA, 8), palette=colours(9))
    histogram = picture(PALETTE, 2, before=numbers(b"hIST", "4H", 9, 9, 9, 9))
    members["histogram"] = Member(histogram, True)
    few = write_png(noise(1, 1), PALETTE, 8, palette=colours(2))
    members["palette-of-2-in-8-bits"] = Member(few, True)

    def animated(count, first, frames):
        more = b""
        for i in range(frames):
            packed = zlib.compress(scanlines(noise(3, 8, seed=5 + i), 8))
            number = 2 * i + first
            more += frame(number, 8, 8)
            more += chunk(b"fdAT", struct.pack(">L", number + 1) + packed)
        start = numbers(b"acTL", "LL", count, 0) + (frame(0, 8, 8) if first else b"")
        return {"before": start, "after": more}

    add("animated-2", False, **animated(2, 1, 1))
    add("animated-3", False, **animated(3, 1, 2))
    add("animated-beside-a-still-picture", False, **animated(2, 0, 2))
    add("animated-1", None, **animated(1, 1, 0))
    members["bytes-after-the-end"] = Member(picture(RGB, 8) + b"more" * 9, True)
    return members


SUITE = _pixel_kinds() | _transparency() | _chunks()
GREYS = {name for name, member in SUITE.items() if member.data[25] in (GREY, GREY_ALPHA)}
SQUARES = {name for name, member in SUITE.items() if member.data[16:20] == member.data[20:24]}
