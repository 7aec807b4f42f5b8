"""PNG files with damage: to their pixels, or only to what stands beside them."""

import struct
import zlib

from data.png_writer import RGB, SIGNATURE, chunk, exif, frame, noise, picture

SOUND = picture(RGB, 8)
PIXELS = noise(3, 8)  # of SOUND, and of all in HARMLESS
START = len(SIGNATURE) + 25  # where IDAT's length stands
SIZE = struct.unpack(">L", SOUND[START : START + 4])[0]
PACKED = SOUND[START + 8 : START + 8 + SIZE]


def _header(width=8, height=8, depth=8, colour=RGB, compression=0, filters=0, interlace=0):
    """The signature and IHDR."""
    values = (width, height, depth, colour, compression, filters, interlace)
    return SIGNATURE + chunk(b"IHDR", struct.pack(">LLBBBBB", *values))


def _with(packed, header=None):
    """The sound file with other compressed bytes."""
    return (header or _header()) + chunk(b"IDAT", packed) + chunk(b"IEND")


def _flipped(data, place):
    """Another byte at a place."""
    changed = bytearray(data)
    changed[place] ^= 0x55
    return bytes(changed)


# No decoder can know the picture.
BROKEN = {
    "signature-byte": _flipped(SOUND, 1),
    "signature-without-high-bit": b"\x09" + SOUND[1:],
    "signature-cr-lf-to-lf": SOUND.replace(b"\r\n", b"\n"),
    "signature-cr-lf-to-cr": SOUND.replace(b"\r\n", b"\r"),
    "colour-type-1": _with(PACKED, _header(colour=1)),
    "colour-type-5": _with(PACKED, _header(colour=5)),
    "colour-type-9": _with(PACKED, _header(colour=9)),
    "depth-0": _with(PACKED, _header(depth=0)),
    "depth-3": _with(PACKED, _header(depth=3)),
    "depth-99": _with(PACKED, _header(depth=99)),
    "rgb-in-4-bits": _with(PACKED, _header(depth=4)),
    "width-0": _with(PACKED, _header(width=0)),
    "height-0": _with(PACKED, _header(height=0)),
    "size-larger-than-any-memory": _with(PACKED, _header(width=2**31 - 1, height=2**31 - 1)),
    "header-short": SIGNATURE + chunk(b"IHDR", bytes(5)) + SOUND[START:],
    "no-pixels": _header() + chunk(b"IEND"),
    "pixels-empty": _with(b""),
    "pixels-cut": SOUND[: START + 90],
    "pixels-not-zlib": _with(b"not zlib at all" * 9),
    "pixels-zlib-header": _with(_flipped(PACKED, 0)),
    "filter-9": _with(zlib.compress((b"\x09" + bytes(24)) * 8)),
    "only-a-signature": SIGNATURE,
    "only-a-header": _header(),
    "empty": b"",
    "one-byte": b"\x89",
    "zeros": bytes(500),
    "text": b"not an image",
    "web-page": b"<!DOCTYPE html><html><body>404</body></html>",
}

# A strict decoder refuses them, a lenient one gives the very pixels.
DOUBTFUL = {
    "header-checksum": _flipped(SOUND, START - 1),
    "pixels-checksum": _flipped(SOUND, START + 8 + SIZE + 1),
    "pixels-zlib-checksum": _with(_flipped(PACKED, -1)),
    "pixels-of-more-rows": _with(zlib.compress(zlib.decompress(PACKED) + bytes(50))),
    "compression-7": _with(PACKED, _header(compression=7)),
    "no-end": SOUND[:-12],
    "end-cut": SOUND[:-5],
    "end-checksum": _flipped(SOUND, -1),
}


def _long(kind, head):
    """A chunk whose compressed part is 20 kB in the file and 20 MB in memory."""
    return chunk(kind, head + zlib.compress(bytes(20 * 2**20), 9))


_ONE_FRAME = chunk(b"acTL", struct.pack(">LL", 1, 0))
_TEXT = chunk(b"tEXt", b"Title\0a text")
_BESIDE = {
    **{
        f"{name}-checksum-{place}": {place: _flipped(data, -1)}
        for name, data in (
            ("text", _TEXT),
            ("exif", chunk(b"eXIf", exif(1))),
            ("time", chunk(b"tIME", bytes(7))),
            ("private", chunk(b"prVt", b"anything")),
        )
        for place in ("before", "after")
    },
    "gamma-short": {"before": chunk(b"gAMA", b"\0\0")},
    "gamma-zero": {"before": chunk(b"gAMA", bytes(4))},
    "primaries-short": {"before": chunk(b"cHRM", bytes(30))},
    "primaries-zero": {"before": chunk(b"cHRM", bytes(32))},
    "srgb-empty": {"before": chunk(b"sRGB")},
    "srgb-intent-77": {"before": chunk(b"sRGB", b"M")},
    "density-short": {"before": chunk(b"pHYs", bytes(3))},
    "profile-empty": {"before": chunk(b"iCCP")},
    "profile-without-a-name": {"before": chunk(b"iCCP", b"name")},
    "profile-of-unknown-compression": {"before": chunk(b"iCCP", b"name\0\7data")},
    "profile-not-zlib": {"before": chunk(b"iCCP", b"name\0\0data")},
    "profile-long": {"before": _long(b"iCCP", b"name\0\0")},
    "text-without-a-word": {"before": chunk(b"tEXt", b"nothing")},
    "text-empty": {"before": chunk(b"tEXt")},
    "text-compressed-of-unknown-compression": {"before": chunk(b"zTXt", b"word\0\7data")},
    "text-compressed-not-zlib": {"before": chunk(b"zTXt", b"word\0\0data")},
    "text-compressed-long": {"before": _long(b"zTXt", b"word\0\0")},
    "text-compressed-long-after": {"after": _long(b"zTXt", b"word\0\0")},
    "text-utf-8-not-utf-8": {"before": chunk(b"iTXt", b"word\0\0\0\xff\0\xff\0\xff\xfe")},
    "text-utf-8-short": {"before": chunk(b"iTXt", b"word\0")},
    "text-utf-8-long": {"before": _long(b"iTXt", b"word\0\1\0\0\0")},
    # Words that a decoder may take for its own notes.
    **{
        f"text-{word.decode().replace(' ', '-')}": {"before": chunk(b"tEXt", word + b"\0(1, 2)")}
        for word in (
            *(b"transparency", b"gamma", b"icc_profile", b"exif", b"bbox", b"srgb", b"dpi"),
            *(b"chromaticity", b"interlace", b"default_image", b"duration", b"xmp", b"loop"),
            *(b"Raw profile type exif", b"Raw profile type icc"),
        )
    },
    "old-exif-not-hex": {"before": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz")},
    "exif-empty": {"before": chunk(b"eXIf")},
    "exif-junk": {"before": chunk(b"eXIf", b"junk" * 9)},
    "exif-cut": {"before": chunk(b"eXIf", exif(6)[:12])},
    "histogram-without-a-palette": {"before": chunk(b"hIST", bytes(7))},
    "palette-suggested-short": {"before": chunk(b"sPLT", b"x")},
    "background-short": {"before": chunk(b"bKGD", b"\0")},
    "animation-short": {"before": chunk(b"acTL", b"\0")},
    "animation-of-no-frames": {"before": chunk(b"acTL", bytes(8))},
    "animation-twice": {"before": _ONE_FRAME * 2},
    "frame-short": {"before": chunk(b"fcTL", bytes(7))},
    "frame-out-of-order": {"before": _ONE_FRAME + frame(5, 8, 8)},
    "frame-beyond-the-picture": {"before": _ONE_FRAME + frame(0, 99, 9)},
    "frame-without-pixels": {"after": frame(0, 8, 8) + chunk(b"fdAT")},
    "palette-beside-rgb-short": {"before": chunk(b"PLTE", bytes(4))},
}

# What is damaged is not the picture: it is SOUND's.
HARMLESS = {name: picture(RGB, 8, **more) for name, more in _BESIDE.items()}
