"""A PNG writer of our own: every colour type, depth, filter and chunk, and Adam7."""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
PLANES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
# First column, first row, and the steps between columns and rows, of each pass.
ADAM7 = [
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
]
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
WIDE_PRIMARIES = (31270, 32900, 73470, 26530, 11520, 82640, 15660, 1770)


def chunk(kind, data=b""):
    """Length, name, data, checksum."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _rows(samples, depth):
    """The bytes of each row: samples from the left, each from its highest bit."""
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        return flat.astype(">u2").view(np.uint8)
    bits = flat[:, :, None] >> np.arange(depth)[::-1] & 1
    return np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)


def _filtered(rows, distance, kinds):
    """Rows with their filters' numbers, of which `kinds` are taken in turn."""
    out, above = b"", np.zeros(rows.shape[1] if len(rows) else 0, int)
    for y, row in enumerate(rows.astype(int)):
        left = np.concatenate([np.zeros(distance, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(distance, int), above])[: len(row)]
        kind = kinds[y % len(kinds)]
        guess = left + above - corner
        a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        predicted = [0 * row, left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def scanlines(samples, depth, interlaced=False, filters=(0, 1, 2, 3, 4)):
    """What zlib compresses: all rows of the picture, or of its seven passes."""
    samples = np.asarray(samples)
    distance = max(1, samples.shape[2] * depth // 8)
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    return b"".join(_filtered(_rows(p, depth), distance, filters) for p in passes if p.size)


def write_png(
    samples,
    colour,
    depth,
    *,
    interlaced=False,
    filters=(0, 1, 2, 3, 4),
    palette=None,
    first=b"",
    before=b"",
    after=b"",
    piece=None,
    level=6,
    wbits=15,
):
    """The bytes of a PNG.

    Args:
        samples: [h, w, planes], as they are stored.
        colour: 0, 2, 3, 4 or 6.
        depth: bits of a sample.
        interlaced: by Adam7.
        filters: of the rows, in turn.
        palette: [n, 3].
        first, before, after: chunks in front of the palette, of the pixels, of the end.
        piece: bytes of each IDAT chunk; all in one by default.
        level, wbits: of zlib.
    """
    height, width, _ = np.shape(samples)
    head = struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, interlaced)
    packer = zlib.compressobj(level, wbits=wbits)
    packed = packer.compress(scanlines(samples, depth, interlaced, filters)) + packer.flush()
    size = piece or len(packed)
    pixels = b"".join(chunk(b"IDAT", packed[i : i + size]) for i in range(0, len(packed), size))
    colours = b"" if palette is None else chunk(b"PLTE", np.uint8(palette).tobytes())
    middle = first + colours + before + pixels + after
    return SIGNATURE + chunk(b"IHDR", head) + middle + chunk(b"IEND")


def exif(orientation, order=">"):
    """An EXIF block that holds one tag."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return head + struct.pack(order + "HHHLHHL", 1, 0x112, 3, 1, orientation, 0, 0)


def frame(number, width, height):
    """The control chunk of a frame of an animation."""
    numbers = (number, width, height, 0, 0, 1, 10, 0, 0)
    return chunk(b"fcTL", struct.pack(">LLLLLHHBB", *numbers))


def noise(planes, depth, height=8, width=None, seed=0):
    """Random samples [h, w, planes]."""
    shape = (height, width or height, planes)
    return np.random.default_rng(seed).integers(0, 2**depth, shape)


def colours(count, seed=1):
    """A random palette [count, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3))


def picture(colour, depth, height=8, width=None, **options):
    """A PNG of random samples."""
    if colour == PALETTE:
        options.setdefault("palette", colours(2**depth))
    return write_png(noise(PLANES[colour], depth, height, width), colour, depth, **options)
