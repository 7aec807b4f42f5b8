"""Image files to grey levels and back, with nothing lost: no resizing, no change of colours.

What cannot be kept is refused, all of it in one message, or converted where that is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
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
    found = ExactImages(paths=[path])
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
        try:
            picture = open_picture(files[index])
            lost = losses(picture, image_format)
            if lost and convert:
                found.converted.append(f"{file} ({', '.join(lost)})")
            elif lost:
                refused.append(f"{file} ({', '.join(lost)})")
                continue
            found.images.append(to_levels(picture, image_format))
        except BrokenImage as error:
            refused.append(f"{file} (broken: {error})")
    if refused:
        advice = "" if convert else ", or store their 8-bit pictures with --convert"
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
    elif image.mode not in MODES:
        lost.append(f"colour mode {image.mode}")
    elif _is_transparent(picture):
        lost.append("transparency")
    lost += _colour_space(image)
    if picture.turned:
        lost.append("an EXIF orientation")
    if picture.salvaged:
        lost.append("damaged metadata")
    if lost:
        return lost
    rgb = np.asarray(image.convert("RGB"))
    if image_format.channels == 1:
        if (rgb != rgb[:, :, :1]).any():
            return ["colours, which this model has not"]
        rgb = rgb[:, :, :1]
    if (image_format.to_bytes(image_format.from_bytes(rgb)) != rgb).any():
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
        DdpmError: the name is that of another kind of file, or something is there already.
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
    return paths


def write_images(
    images: Sequence[UInt8[Tensor, "c _h _w"]],
    paths: Sequence[Path],
    image_format: ImageFormat,
    chunks: Sequence[Mapping[str, str]] | None = None,
) -> None:
    """Images as PNGs, grey ones as grey.

    Args:
        images: grey levels.
        paths: where each goes.
        image_format: of them.
        chunks: text of each; see `save_png`.
    """
    texts = chunks or [{}] * len(images)
    for image, path, text in zip(images, paths, texts, strict=True):
        values = image_format.to_bytes(image.permute(1, 2, 0).numpy())
        picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        save_png(picture, path, text)


def save_png(picture: Image.Image, path: Path, chunks: Mapping[str, str] | None = None) -> None:
    """Write a PNG, atomically.

    Args:
        picture: what it shows.
        path: of the file.
        chunks: text by keyword, kept in front of the pixels as UTF-8 (see `ddpm.provenance`).
    """
    text = PngInfo()
    for keyword, value in (chunks or {}).items():
        text.add_itxt(keyword, value)
    atomically(path, lambda partial: picture.save(partial, format="PNG", pnginfo=text))
