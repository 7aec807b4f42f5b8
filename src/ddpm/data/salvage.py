"""Files whose pixels are whole and whose metadata are not: the same file without its metadata."""

from __future__ import annotations

from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
XMP = b"XML:com.adobe.xmp"
JPEG = b"\xff\xd8"
START_OF_SCAN, ADOBE = 0xDA, 0xEE


def is_srgb(data: bytes) -> bool:
    """Whether the coding-independent code points (cICP) of a PNG, if any, are those of sRGB."""
    found = [chunk[8:10] for chunk in _chunks(data) if chunk[4:8] == b"cICP"]
    return not found or found[0] == bytes((1, 13))


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts, which Pillow takes for its own notes (gamma, interlace) if they are
    called so; other files as they are. XMP, which may say how the picture is turned, stays."""
    if not data.startswith(PNG) or not any(kind in data for kind in TEXTS):
        return data
    return PNG + b"".join(
        chunk for chunk in _chunks(data) if chunk[4:8] not in TEXTS or chunk[8:].startswith(XMP)
    )


def without_metadata(data: bytes) -> bytes | None:
    """A PNG or JPEG with nothing but what its pixels need; None for other files."""
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(JPEG):
        return _jpeg(data)
    return None


def _png(data: bytes) -> bytes:
    """A PNG with its critical chunks and its transparency."""
    return PNG + b"".join(chunk for chunk in _chunks(data) if chunk[4:8] in NEEDED)


def _chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG, and what stands behind the last whole one."""
    position = len(PNG)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        yield data[position:end]
        position = end
    yield data[position:]


def _jpeg(data: bytes) -> bytes:
    """A JPEG without its application segments and comments; Adobe's says what the colours are."""
    kept, position = [JPEG], len(JPEG)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == START_OF_SCAN:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        application = 0xE0 <= marker <= 0xEF or marker == 0xFE
        whole_adobe = marker == ADOBE and end - position >= 14
        if not application or whole_adobe:
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])
