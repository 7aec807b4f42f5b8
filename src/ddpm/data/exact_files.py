"""Image files to grey levels and back, with nothing lost: no resizing, no change of colours.

What cannot be kept is refused, all of it in one message, or converted where that is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddpm.data.decode import (
    BrokenImage,
    Picture,
    Quiet,
    open_picture,
    plain,
    transparent_mask,
    upright,
)
from ddpm.data.folder import ImageFiles, no_images
from ddpm.data.images import ImageFormat
from ddpm.data.listing import KINDS, UNREAD, kinds, list_folder, reasons
from ddpm.errors import DdpmError, check
from ddpm.runtime.atomic import atomically
from ddpm.runtime.paths import exists

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # whose pixels are 8-bit colours
NAMED = 20  # images that a message names
WHITE, PRIMARIES, SAMPLES = 318, 319, 277  # tags of TIFF, and of EXIF below
EXIF, SPACE, INTEROPERABILITY = 0x8769, 0xA001, 0xA005
SRGB, ADOBE_RGB = 1, 2  # colour spaces of EXIF
SRGB_GAMMA = 1 / 2.2
SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)

log = logging.getLogger("ddpm")


@dataclass
class ExactImages:
    """Images as a model's grey levels.

    Args:
        images: uint8, [c, h, w] each.
        paths: their files.
        converted: what was lost, a line an image; empty unless that was allowed.
    """

    images: list[Tensor] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)


def read_images(path: Path, image_format: ImageFormat, convert: bool = False) -> ExactImages:
    """One image, or all of a folder in the order of their names, as a model's grey levels.

    Args:
        path: a file or a folder.
        image_format: of the model; the images may have any size.
        convert: take the 8-bit picture of what cannot be kept exactly.

    Raises:
        DdpmError: there is nothing there, or an image cannot be read or kept; names all of them.
    """
    check(image_format.channels in (1, 3), f"no image file has {image_format.channels} channels")
    check(exists(path), f"{path} does not exist")
    found, convertible = ExactImages(paths=[path]), 0
    refused: list[str] = []
    if path.is_dir():
        listing = list_folder(path)
        found.paths = [Path(name) for name in listing.images]
        refused = [f"{name} (of a kind that is not read)" for name in listing.unread]
        check(bool(found.paths or refused), no_images(path) + reasons(listing.left_out))
        log.info(
            "%s: %s images (%s)%s",
            *(path, f"{len(found.paths):,}", kinds(map(str, found.paths))),
            reasons(listing.left_out),
        )
    files = ImageFiles(found.paths, path.name)
    for index, file in enumerate(found.paths):
        lost: list[str] = []
        try:
            picture = open_picture(files[index])
            lost = losses(picture, image_format)
            levels = to_levels(picture, image_format)
        except BrokenImage as error:
            why = ", ".join([*lost, str(error)]) if lost else f"broken: {error}"
            refused.append(f"{file} ({why})")
            continue
        said = f"{file} ({', '.join(lost)})"
        if lost and not convert:
            refused.append(said)
            convertible += 1
            continue
        found.converted += [said] * bool(lost)
        found.images.append(levels)
    if refused:
        whose = "their" if convertible == len(refused) else f"{convertible:,} of their"
        advice = f", or store {whose} 8-bit pictures with --convert" if convertible else ""
        count = len(found.images) + len(refused)
        raise DdpmError(
            f"{len(refused):,} of {count:,} images cannot be kept exactly: "
            f"{some(refused)}; convert or remove them{advice}"
        )
    return found


def some(names: Sequence[str]) -> str:
    """Names for a message: the first ones, and how many there are besides."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def losses(picture: Picture, image_format: ImageFormat) -> list[str]:
    """What of a picture would not come back; nothing if its colours do, pixel by pixel.

    Grey images and palettes become the same colours in RGB, and an RGB image without colours the
    same greys; an alpha channel that hides nothing is nothing to keep.
    """
    with Quiet.context():
        return _losses(picture, image_format)


def _losses(picture: Picture, image_format: ImageFormat) -> list[str]:
    """See `losses`."""
    image, lost = picture.image, []
    if picture.frames > 1:
        lost.append("several frames")
    if picture.bits > 8:
        lost.append(f"{picture.bits} bits a sample")
    wide_grey = picture.bits > 8 and image.mode.startswith("I")
    if image.mode not in MODES and not wide_grey:
        lost.append(f"colour mode {image.mode}")
    elif _is_transparent(picture):
        lost.append("transparency")
    if getattr(image, "tag_v2", {}).get(SAMPLES, 1) > len(image.getbands()):
        lost.append("extra samples")
    lost += _colour_space(image)
    if picture.turned:
        lost.append("an EXIF orientation")
    if picture.salvaged:
        lost.append("damaged metadata")
    if "behind" in image.info:
        lost.append(image.info["behind"])
    mode = "L" if wide_grey or image.mode in ("1", "L", "LA") else "RGB"
    try:
        return lost + _too_fine(plain(image, picture.bits, mode), image_format)
    except BrokenImage:  # there is no 8-bit picture of it
        if not lost:
            raise
        return lost


def _too_fine(picture: Image.Image, image_format: ImageFormat) -> list[str]:
    """What of an 8-bit picture, L or RGB, a model has not."""
    lost = []
    if image_format.channels == 1 and picture.mode == "RGB":
        red, green, blue = picture.split()
        if any(ImageChops.difference(red, other).getbbox() for other in (green, blue)):
            lost.append("colours, which this model has not")
        picture = picture.convert("L")
    grey = np.arange(256, dtype=np.uint8)
    changed = image_format.to_bytes(image_format.from_bytes(grey)) != grey
    if np.reshape(picture.histogram(), (-1, 256))[:, changed].any():
        lost.append(f"more than the {image_format.levels} grey levels of this model")
    return lost


def _is_transparent(picture: Picture) -> bool:
    """Whether any pixel is not opaque."""
    image = picture.image
    mask = transparent_mask(image, picture.bits)
    if mask is not None:
        return mask.getbbox() is not None
    return image.has_transparency_data and bool(
        np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255
    )


def _colour_space(image: Image.Image) -> list[str]:
    """What says that the numbers are other colours than sRGB's."""
    info = image.info
    lost = ["a colour profile"] if info.get("icc_profile") else []
    if info.get("cicp"):
        lost.append("another colour space")
    if "srgb" in info:  # takes precedence over the other two
        return lost
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    if gamma is not None and abs(gamma - SRGB_GAMMA) > 1e-3:
        lost.append("a gamma")
    if primaries is not None and np.abs(np.subtract(primaries, SRGB_CHROMATICITIES)).max() > 1e-3:
        lost.append("chromaticities")
    return lost + _colour_tags(image)


def _colour_tags(image: Image.Image) -> list[str]:
    """What the tags of a TIFF or EXIF say of that; nothing where they cannot be read."""
    lost = []
    with contextlib.suppress(Exception):  # damaged, which the pixels are not
        tags = image.getexif()
        for tag, srgb in ((WHITE, SRGB_CHROMATICITIES[:2]), (PRIMARIES, SRGB_CHROMATICITIES[2:])):
            if tag in tags and np.abs(np.subtract(tags[tag], srgb).astype(float)).max() > 1e-3:
                lost = ["chromaticities"]
        space, index = tags.get_ifd(EXIF).get(SPACE), tags.get_ifd(INTEROPERABILITY).get(1)
        if space == ADOBE_RGB or (space != SRGB and index == "R03"):
            lost.append("the colours of Adobe RGB")
    return lost


def to_levels(picture: Picture, image_format: ImageFormat) -> UInt8[Tensor, "c _h _w"]:
    """The picture in a model's colours and grey levels."""
    mode = "L" if image_format.channels == 1 else "RGB"
    values = np.asarray(plain(upright(picture.image), picture.bits, mode))
    levels = image_format.from_bytes(values.reshape(*values.shape[:2], -1))
    return torch.from_numpy(levels).permute(2, 0, 1).contiguous()


def numbered(number: int) -> str:
    """The name of an image in a folder of them that has none."""
    return f"{number:06d}.png"


def image_paths(path: Path, names: Sequence[str]) -> list[Path]:
    """Where `write_images` puts images.

    Args:
        path: a .png for a single one, or a folder.
        names: of the images in a folder.

    Raises:
        DdpmError: the name is that of another kind of file, something is there already, or what is
            to be a folder is none that can be written to.
    """
    if path.suffix.lower() == ".png":
        count = len(names)
        check(count == 1, f"there are {count:,} images; give --out a folder instead of {path}")
        paths = [path]
    else:
        suffixes = {*KINDS.split(" "), *UNREAD.split(" ")}
        check(
            path.suffix.lower() not in suffixes,
            f"images are written as PNG; give --out a name ending in .png, or a folder, not {path}",
        )
        paths = [path / name for name in names]
    there = [found for found in paths if exists(found)]
    check(
        not there,
        f"{', '.join(map(str, there[:1]))} is there already and is not overwritten; choose another "
        "--out",
    )
    for folder in {next(filter(exists, found.parents)) for found in paths}:
        check(folder.is_dir(), f"{folder} is no folder to put images into; choose another --out")
        check(os.access(folder, os.W_OK), f"{folder} may not be written to; choose another --out")
    return paths


def write_images(
    images: Sequence[UInt8[Tensor, "c _h _w"]],
    paths: Sequence[Path],
    image_format: ImageFormat,
    chunks: Sequence[Mapping[str, str]] | None = None,
    replace: bool = True,
) -> None:
    """Images as PNGs, grey ones as grey.

    Args:
        images: grey levels.
        paths: where each goes.
        image_format: of them.
        chunks: text of each; see `save_png`.
        replace: what is there already. Otherwise it is all or nothing: if one cannot be written,
            those before it are removed.

    Raises:
        DdpmError: one cannot be written, or is there already and not to be replaced.
    """
    texts = chunks or [{}] * len(images)
    written: list[Path] = []
    try:
        for image, path, text in zip(images, paths, texts, strict=True):
            values = image_format.to_bytes(image.permute(1, 2, 0).numpy())
            picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
            save_png(picture, path, text, replace)
            written.append(path)
    except BaseException:
        for path in [] if replace else written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def save_png(
    picture: Image.Image,
    path: Path,
    chunks: Mapping[str, str] | None = None,
    replace: bool = True,
) -> None:
    """Write a PNG, atomically.

    Args:
        picture: what it shows.
        path: of the file.
        chunks: text by keyword, kept in front of the pixels as UTF-8 (see `ddpm.provenance`).
        replace: what is there already.

    Raises:
        DdpmError: it cannot be written, or is there already and not to be replaced.
    """
    text = PngInfo()
    for keyword, value in (chunks or {}).items():
        text.add_itxt(keyword, value)
    atomically(
        path, lambda partial: picture.save(partial, format="PNG", pnginfo=text), replace=replace
    )
