"""Encoded images to uint8 tensors: EXIF rotation, centre crop, colours, resize."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ddpm.data.foreign import HEAD, what_bytes_are
from ddpm.data.images import EncodedImages
from ddpm.data.salvage import is_srgb, without_metadata, without_texts
from ddpm.errors import DdpmError

TURNS = {  # by EXIF's orientation: what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImage(DdpmError):
    """The bytes are no image, or a damaged one; the message is the reason."""


class SeveralFrames(BrokenImage):
    """An animation or a file of several pages: which of them is meant is unknown."""


class Quiet:
    """Pillow's warnings are switched off while any thread decodes: what matters is an error."""

    lock, inside = threading.Lock(), 0
    kept: warnings.catch_warnings | None = None

    @classmethod
    @contextmanager
    def context(cls) -> Iterator[None]:
        """The first one in switches them off, the last one out on again."""
        with cls.lock:
            if cls.inside == 0:
                cls.kept = warnings.catch_warnings()
                cls.kept.__enter__()
                warnings.simplefilter("ignore")
            cls.inside += 1
        try:
            yield
        finally:
            with cls.lock:
                cls.inside -= 1
                if cls.inside == 0 and cls.kept is not None:
                    cls.kept.__exit__(None, None, None)


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored: neither turned nor converted.

    Args:
        image: all of it, loaded.
        bits: of a sample in the file, of which Pillow may have kept 8.
        frames: how many pictures the file holds.
        turned: whether it is stored other than upright.
        salvaged: whether its metadata are damaged and were left out.
    """

    image: Image.Image
    bits: int
    frames: int
    turned: bool = False
    salvaged: bool = False


def open_picture(data: bytes) -> Picture:
    """The (first) picture in the bytes of a file; of a PNG or JPEG also if only what lies beside
    its pixels is damaged.

    Raises:
        BrokenImage: it cannot be read.
    """
    with Quiet.context():
        try:
            return _open(data)
        except Exception as error:  # damaged bytes make Pillow raise anything
            first = error
        with contextlib.suppress(Exception):
            rest = without_metadata(data)
            if rest is not None:
                return replace(_open(rest), salvaged=True)
    known = what_bytes_are(data[:HEAD])
    if known is None and isinstance(first, UnidentifiedImageError):
        known = "no image of a known kind", ""
    reason = ": ".join(filter(None, known)) if known else f"{type(first).__name__}: {first}"
    raise BrokenImage(" ".join(reason.split())[:200]) from first


def _open(data: bytes) -> Picture:
    """What Pillow makes of a file, mended where it is known to be wrong."""
    with Image.open(io.BytesIO(without_texts(data))) as image:
        frames, tiff = getattr(image, "n_frames", 1), image.format == "TIFF"
        turned = tiff and orientation(image) != 1  # loading turns it; the others it leaves as is
        inverted = tiff and image.tag_v2.get(262) == 0
        rest = _behind_pixels(image, data) if image.format == "PPM" else b""
        image.load()
        turned = turned or orientation(image) != 1
        picture: Image.Image = image
        srgb = {"PNG": is_srgb, "AVIF": _is_avif_srgb}.get(image.format or "")
        if srgb and not srgb(data):
            picture.info["cicp"] = True
        if rest:
            another = re.match(rb"P[1-7]\s", rest)
            picture.info["behind"] = "more pictures" if another else "data behind its pixels"
        if inverted and image.mode == "I;16":  # Pillow turns white into black with 8 bits only
            picture = Image.fromarray(65535 - np.asarray(image))
        return Picture(picture, _bits(image, data), frames, turned)


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a sample in the file."""
    if image.format == "PNG":
        return data[24]  # of the header chunk, which always comes first
    if image.format == "TIFF":
        return int(max(np.atleast_1d(image.tag_v2.get(258, 8))))
    if image.format == "PPM":
        found = re.match(rb"P[2356]\s+(?:#[^\n]*\s+)*\d+\s+(?:#[^\n]*\s+)*\d+\s+(\d+)", data)
        return 16 if found and int(found[1]) > 255 else 8
    if image.format == "AVIF":
        flags = data[data.find(b"av1C") + 6]  # of the AV1 configuration box
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return 16 if image.mode.startswith("I") else 8


def _is_avif_srgb(data: bytes) -> bool:
    """Whether the code points (nclx) of an AVIF, if any, are those of sRGB or left open."""
    found = re.findall(rb"colrnclx\0(.)\0(.)", data, re.DOTALL)
    return all(primaries in b"\1\2" and curve in b"\r\2" for primaries, curve in found)


def _behind_pixels(image: Image.Image, data: bytes) -> bytes:
    """What follows the pixels of a PPM that is not loaded yet, but for blanks: another picture,
    say."""
    decoder, _, offset, _ = image.tile[0]
    if decoder == "ppm_plain":  # whose pixels are numbers as text
        found = re.search(rb"[^\d\s].*", re.sub(rb"#[^\n]*", b"", data[offset:]), re.DOTALL)
        return found[0] if found else b""
    if image.mode == "F":  # which is refused as that
        return b""
    bits = 1 if image.mode == "1" else _bits(image, data) * len(image.getbands())
    return data[offset + (image.width * bits + 7) // 8 * image.height :].strip()


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1..8; 1 (upright) where it cannot be read."""
    with Quiet.context():
        try:
            found = int(image.getexif().get(0x0112, 1))
        except Exception:  # the metadata are damaged, which the pixels are not
            return 1
    return found if found in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture as it is meant to be seen."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def plain(image: Image.Image, bits: int, mode: str) -> Image.Image:
    """A picture in 8-bit grey (L) or colours (RGB), transparent parts on white.

    Args:
        image: a picture or a part of one.
        bits: of a sample in its file.
        mode: L or RGB.

    Raises:
        BrokenImage: its values have no known range, or Pillow cannot convert it.
    """
    try:
        if image.mode == "F" or bits > 16:
            raise BrokenImage("values of unknown range")
        if image.mode == "LAB":  # which Pillow converts to colours only
            image = image.convert("RGB")
        mask = transparent_mask(image, bits)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
            wide = np.asarray(image, dtype=np.float64) / 257
            image = Image.fromarray(wide.round().clip(0, 255).astype(np.uint8))
        if mask is not None:
            image = image.copy()  # whose own information stays
            image.info.pop("transparency", None)
            image = image.convert("RGB")
            image.paste((255, 255, 255), mask=mask)
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert(mode)
    except (ValueError, OSError) as error:
        raise BrokenImage(str(error)) from error


def transparent_mask(image: Image.Image, bits: int) -> Image.Image | None:
    """Where a picture has the one colour that is transparent, as a mask; None for palettes."""
    key = image.info.get("transparency")
    if key is None or image.mode not in ("1", "L", "I", "I;16", "I;16B", "RGB"):
        return None
    values = np.asarray(image).astype(np.int64)
    wanted = np.asarray(key, dtype=np.int64)
    if image.mode == "1":
        values = values * 255
    elif image.mode == "RGB" and bits == 16:
        wanted = wanted >> 8  # Pillow keeps the upper byte
    elif image.mode == "L" and bits < 8:
        wanted = wanted * (255 // (2**bits - 1))  # spread over 0..255, as the pixels are
    equal = values == wanted
    equal = equal.all(axis=2) if equal.ndim == 3 else equal
    return Image.fromarray(equal.astype(np.uint8) * 255)


def decode_image(data: bytes, image_size: int, channels: int) -> UInt8[Tensor, "c h w"]:
    """One encoded image as a square of `image_size` pixels.

    The middle square of whole pixels, as wide as the shorter side, is cut out and, if it has
    another size, resized with Pillow's Lanczos filter, whose kernel widens with the reduction, so
    that nothing aliases. This is how the paper's LSUN images were made (the authors read the
    output of `dataset_tool.py` of StyleGAN2: the same crop, PIL.Image.ANTIALIAS). Transparent
    parts are shown on white. Metadata that cannot be read are passed over.

    Raises:
        BrokenImage: the bytes are no image, a damaged one, or one of several frames.
    """
    picture = single(open_picture(data))
    return to_square(upright(picture.image), picture.bits, image_size, channels)


def single(picture: Picture) -> Picture:
    """Refuse a file of several pictures.

    Raises:
        SeveralFrames: it has. A photograph with small versions of itself behind it (MPO) is one.
    """
    if picture.frames > 1 and picture.image.format != "MPO":
        raise SeveralFrames("several frames")
    return picture


def to_square(
    image: Image.Image, bits: int, image_size: int, channels: int
) -> UInt8[Tensor, "c h w"]:
    """The cropping, the colours and the size of `decode_image`."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    square = plain(square, bits, "L" if channels == 1 else "RGB")
    if side != image_size:
        square = square.resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square)).reshape(image_size, image_size, channels)
    return pixels.permute(2, 0, 1).contiguous()


@dataclass
class Decoded:
    """What became of a set of encoded images.

    Args:
        images: those that can be read, in order.
        kept: their indices.
        broken: the names of those that cannot, with the reason.
        left_out: those that are whole but no single picture, counted by the reason.
    """

    images: list[Tensor] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def decode_many(
    encoded: EncodedImages, indices: Sequence[int], image_size: int, channels: int
) -> Decoded:
    """Decode images in threads."""

    def attempt(index: int) -> Tensor | DdpmError:
        try:
            return decode_image(encoded[index], image_size, channels)
        except DdpmError as error:
            return error

    with Quiet.context(), ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, indices))
    decoded = Decoded()
    for index, result in zip(indices, results, strict=True):
        if isinstance(result, Tensor):
            decoded.images.append(result)
            decoded.kept.append(index)
        elif isinstance(result, SeveralFrames):
            decoded.left_out[str(result)] += 1
        else:
            decoded.broken.append(f"{encoded.describe(index)} ({result})")
    return decoded
