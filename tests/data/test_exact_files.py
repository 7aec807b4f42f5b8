"""What is said of a picture that cannot be kept; pictures that are written all or not at all."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from codec.kept_cases import COLOURS, KEPT, REFUSED, UNREADABLE
from data.odd_pictures import encoded
from data.png_writer import SIGNATURE
from ddpm.data.decode import open_picture
from ddpm.data.exact_files import losses, numbered, read_images, write_images
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from mistakes import everything_below

FORMATS = {1: ImageFormat(1, 8, 8), 3: ImageFormat(3, 8, 8), 17: ImageFormat(1, 8, 8, 17)}
COLOURS_GO, LEVELS_GO = "colours, which this model has not", "more than the 17 grey levels"


def lost(name, channels):
    """What a model would lose of a picture, in one line."""
    return ", ".join(losses(open_picture(REFUSED[name].data), FORMATS[channels]))


@pytest.mark.parametrize("name", [*KEPT, *REFUSED])
def test_only_what_cannot_be_kept_loses_something(name):
    case = {**KEPT, **REFUSED}[name]
    assert bool(losses(open_picture(case.data), FORMATS[case.channels])) == (name in REFUSED)


@pytest.mark.parametrize(
    ("name", "channels", "words"),
    [
        ("transparent.png", 1, ["transparency", COLOURS_GO]),
        ("transparent-key.png", 1, ["transparency", COLOURS_GO]),
        ("several-reasons.png", 3, ["16 bits", "transparency", "a gamma"]),
        ("several-reasons.png", 1, ["16 bits", "transparency", "a gamma", COLOURS_GO]),
        ("several-reasons.png", 17, ["16 bits", "transparency", "gamma", COLOURS_GO, LEVELS_GO]),
        ("16-bits.png", 17, ["16 bits", LEVELS_GO]),
        ("turned.tif", 1, ["orientation", COLOURS_GO]),
        ("floats.tif", 1, ["32 bits", "colour mode F"]),
    ],
)
def test_all_that_goes_is_named(name, channels, words):
    said = lost(name, channels)
    assert [word for word in words if word not in said] == []
    assert len(said.replace("colours, which", "colours which").split(", ")) == len(words)


def test_looking_for_losses_leaves_the_picture_as_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(REFUSED["transparent-key.png"].data)
    (found,) = read_images(tmp_path, FORMATS[3], convert=True).images
    assert np.array_equal(found.permute(1, 2, 0), REFUSED["transparent-key.png"].shown)


def bomb():
    """A PNG of more pixels than Pillow opens."""
    head = b"IHDR" + struct.pack(">LLBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    return SIGNATURE + struct.pack(">L", 13) + head + struct.pack(">L", zlib.crc32(head))


NO_HELP = {
    **UNREADABLE,
    "bomb.png": bomb(),
    "32-bits.tif": REFUSED["32-bits.tif"].data,
    "floats.tif": REFUSED["floats.tif"].data,
}


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", NO_HELP)
def test_convert_is_not_advised_where_it_does_not_help(name, alone, tmp_path):
    (tmp_path / name).write_bytes(NO_HELP[name])
    with pytest.raises(DdpmError, match="cannot be kept exactly") as refusal:
        read_images(tmp_path / name if alone else tmp_path, FORMATS[1])
    assert "--convert" not in str(refusal.value)


def test_convert_is_advised_for_those_that_it_helps(tmp_path):
    (tmp_path / "a.png").write_bytes(REFUSED["transparent.png"].data)
    with pytest.raises(DdpmError, match="or store their 8-bit pictures with --convert"):
        read_images(tmp_path, FORMATS[3])
    (tmp_path / "b.png").write_bytes(NO_HELP["cut.png"])
    with pytest.raises(DdpmError, match=r"2 of 2 .* store 1 of their 8-bit pictures with --conv"):
        read_images(tmp_path, FORMATS[3])


# -- writing -------------------------------------------------------------------------------------

IMAGES = [torch.full((1, 8, 8), grey, dtype=torch.uint8) for grey in (10, 20, 30)]


def write(folder, **options):
    """Three images by their numbers."""
    paths = [folder / numbered(i) for i in range(3)]
    write_images(IMAGES, paths, FORMATS[1], **options)


@pytest.mark.parametrize("number", range(3))
def test_what_came_to_be_there_stays_and_nothing_new_is_left(tmp_path, number):
    (tmp_path / numbered(number)).write_bytes(encoded(COLOURS, "PNG"))
    before = everything_below(tmp_path)
    with pytest.raises(DdpmError, match=f"{numbered(number)} is there already"):
        write(tmp_path, replace=False)
    assert everything_below(tmp_path) == before
    (tmp_path / numbered(number)).unlink()
    write(tmp_path, replace=False)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_none_of_the_images(tmp_path, monkeypatch):
    really = Image.Image.save

    def save(picture, path, **options):
        if numbered(2) in path.name:
            raise OSError(28, "No space left on device")
        really(picture, path, **options)

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", save)
        with pytest.raises(DdpmError, match="No space left on device"):
            write(tmp_path, replace=False)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, replace=False)


def test_images_of_a_set_replace_one_another(tmp_path):
    write(tmp_path)
    write(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
