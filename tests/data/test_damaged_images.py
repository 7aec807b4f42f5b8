"""Damaged images: counted, listed and passed over, whatever they make a decoder raise."""

import logging
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from data.odd_pictures import ALL_FORMS, LIES, MP, encoded, ifd, quarters, segment, tiff
from data.png_writer import RGB, chunk, picture
from data.sets import WRITERS, flat
from ddpm.data import DataOrder, decode, open_data, training_batches
from ddpm.data.decode import decode_image
from ddpm.data.folder import image_folder
from ddpm.data.lsun import lmdb_images
from ddpm.data.parquet import parquet_images
from ddpm.errors import DdpmError
from mistakes import refused

pytestmark = pytest.mark.slow  # many members


NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
LONELY = [f for f in ALL_FORMS if f != "MPO"]


@pytest.mark.parametrize("form", ALL_FORMS)
def test_any_damage_is_a_picture_or_a_sentence(form, tmp_path, capfd):
    """Truncations and changed bytes all over the file; nothing else may come out."""
    sound = encoded(NOISE, form)
    rng = np.random.default_rng(len(form))
    for i in range(30):
        data = bytearray(sound)
        if i % 3 == 0:
            data = data[: rng.integers(0, len(data))]
        else:
            for place in rng.integers(0, len(data) if i % 3 == 1 else 100, 3) % len(data):
                data[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.png").write_bytes(data)
        try:
            shape, sentence = image_folder(tmp_path, 4, 3).format.shape, "a.png"
        except DdpmError as error:
            shape, sentence = (3, 4, 4), str(error)
        assert shape == (3, 4, 4)
        assert "a.png" in sentence
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7])
@pytest.mark.parametrize("form", LONELY)
def test_a_file_of_which_a_part_is_missing_is_broken(form, share, tmp_path):
    sound = encoded(NOISE, form)
    (tmp_path / "a.png").write_bytes(sound[: round(share * len(sound))])
    with pytest.raises(DdpmError, match=r"a\.png"):
        image_folder(tmp_path, 24, 3)


RAISED = [
    *(struct.error, ZeroDivisionError, TypeError, ValueError, KeyError, IndexError, EOFError),
    *(AttributeError, OverflowError, RecursionError, AssertionError, SyntaxError, OSError),
    *(NotImplementedError, RuntimeError, BufferError, Image.DecompressionBombError),
]


def raising(error):
    """A function of any arguments that fails so."""

    def fail(*_, **__):
        raise error("simulated")

    return fail


@pytest.mark.parametrize("place", ["open", "load"])
@pytest.mark.parametrize("error", RAISED)
def test_whatever_a_decoder_raises_the_image_is_broken(error, place, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(flat(5))
    owner = Image if place == "open" else ImageFile.ImageFile
    monkeypatch.setattr(owner, place, raising(error))
    with pytest.raises(DdpmError, match=r"a\.png"):
        image_folder(tmp_path, 4, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", flat(5)[:40], encoded(NOISE, "JPEG")[:300]],
    ids=["nothing", "junk", "half-a-png", "half-a-jpeg"],
)
def test_a_caller_is_told_by_one_kind_of_error(data):
    with pytest.raises(decode.BrokenImage) as caught:
        decode_image(data, 4, 3)
    assert isinstance(caught.value, DdpmError)
    assert "\n" not in str(caught.value)


def malformed_pages():
    """A JPEG that says that it holds two pictures, and does not."""
    clean = encoded(quarters(), "JPEG")
    return clean[:2] + segment(0xE2, MP + b"junk" * 9) + clean[2:]


SIDE = quarters()[:, :, None]
NOISY = {  # what makes Pillow or a library below it warn
    "png-of-many-pixels": encoded(quarters(), "PNG"),
    "png-animation-of-no-frames": picture(RGB, 8, 16, before=chunk(b"acTL", bytes(8))),
    "png-exif-beyond": encoded(quarters(), "PNG", exif=ifd(LIES)[:14]),
    "png-exif-larger-than-the-file": encoded(
        quarters(), "PNG", exif=ifd(LIES, (0x1234, 1, 2**31, b"12345"))
    ),
    "png-palette-of-alphas": picture(3, 4, 16, before=chunk(b"tRNS", bytes(range(16)))),
    "jpeg-of-two-pictures-that-are-not-there": malformed_pages(),
    "tiff-tag-of-too-many-entries": tiff(SIDE, 8, 1, (0x128, 3, 2, b"\2\0\2\0")),
    "tiff-tag-beyond": tiff(SIDE, 8, 1, (0x13B, 2, 9999, b"\xff\xff\xff\x7f")),
    "tiff-deflate-unknown-tag": encoded(
        quarters(), "TIFF", compression="tiff_adobe_deflate", tiffinfo={65000: "unknown"}
    ),
}


@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "streamed"])
@pytest.mark.parametrize("name", NOISY)
def test_nothing_is_said_by_the_libraries(name, limit, tmp_path, capfd, monkeypatch):
    if "many-pixels" in name:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    (tmp_path / "a.png").write_bytes(NOISY[name])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = image_folder(tmp_path, 16, 3, limit)[torch.tensor([0])]
    assert images.shape == (1, 3, 16, 16)
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


GREYS = [flat(value) for value in range(250)]
JUNK = (b"\0", b"not an image", GREYS[7][:40])


def values_of(count, broken):
    """Flat images of grey 0, 1, 2, ..., of which some are broken."""
    return [JUNK[i % 3] if i in broken else GREYS[i % 250] for i in range(count)]


def open_form(form, folder, limit):
    """The images that `WRITERS[form]` has made."""
    if form == "parquet":
        return parquet_images(sorted(folder.glob("*.parquet")), 4, 3, "rows", limit)
    return {"folder": image_folder, "lmdb": lmdb_images}[form](folder, 4, 3, limit)


def listed(message):
    """The names in the file that a message names."""
    words = re.split(r"[\s,;:()'\"]+", message)
    (path,) = {word for word in words if Path(word).is_file() and not word.endswith(".png")}
    return Path(path).read_text().splitlines()


@pytest.mark.parametrize("form", sorted(WRITERS))
@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "streamed"])
def test_all_broken_images_of_a_refused_set_are_listed_in_a_file(form, limit, tmp_path):
    broken = {3, 17, 18, 40, 62, 99}
    folder = WRITERS[form](tmp_path / form, values_of(100, broken))
    with pytest.raises(DdpmError, match=r"\b6 of 100\b") as caught:
        open_form(form, folder, limit)
    assert len(listed(str(caught.value))) == 6
    if form == "folder":
        for number, line in zip(sorted(broken), listed(str(caught.value)), strict=True):
            assert f"{number:04d}.png" in line


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_all_broken_images_of_an_accepted_set_are_listed_in_a_file(form, tmp_path, caplog):
    folder = WRITERS[form](tmp_path / form, values_of(300, {5, 6, 290}))
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        assert len(open_form(form, folder, 2**30)) == 297
    (message,) = caplog.messages
    assert re.search(r"\b3\b.*\b300\b", message)
    assert len(listed(message)) == 3
    if form == "folder":
        assert caplog.text.count("0006.png") <= 1


@pytest.mark.slow
def test_the_command_names_the_file_that_lists_them_all(tmp_path, capsys):
    WRITERS["folder"](tmp_path / "own", values_of(100, {3, 17, 18, 40}))
    size = ["--data.image-size", "8", "--data.channels", "3"]
    command = ["train", "digits", "--data.path", tmp_path / "own", *size]
    line = refused([*command, "--out", tmp_path / "run"], capsys, "4 of 100", "0003.png")
    assert len(listed(line)) == 4
    assert not (tmp_path / "run").exists()


# Images of a set, and which of them are broken.
ACCEPTED = {
    "one-of-100": (100, {41}),
    "exactly-1-percent": (300, {0, 1, 299}),
    "first": (400, {0, 1, 2, 3}),
    "last": (400, {396, 397, 398, 399}),
    "middle": (400, {200, 201, 202, 203}),
    "6-side-by-side": (600, set(range(300, 306))),
    "6-where-it-is-looked": (600, {600 * i // 200 for i in range(6)}),
    "all-over": (600, set(range(50, 600, 100))),
}
REFUSED = {
    "two-of-100": (100, {41, 90}),
    "all": (20, set(range(20))),
    "all-but-one": (20, set(range(19))),
    "just-over-1-percent": (300, {0, 1, 298, 299}),
    "4-percent-side-by-side": (500, set(range(300, 320))),
    "every-tenth": (500, set(range(3, 500, 10))),
    "second-half": (300, set(range(150, 300))),
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "streamed"])
def test_up_to_1_percent_of_broken_images_are_passed_over(name, limit, tmp_path, caplog):
    count, broken = ACCEPTED[name]
    folder = WRITERS["folder"](tmp_path / "own", values_of(count, broken))
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        images = image_folder(folder, 4, 3, limit)
        good = [i for i in range(count) if i not in broken]
        if limit:
            assert images.images[:, 0, 0, 0].tolist() == [i % 250 for i in good]
            return
        assert len(images) == count  # the next good image stands in for a broken one
        near = sorted({(b + shift) % count for b in broken for shift in (-1, 0, 1)})
        for _ in range(2):
            shown = images[torch.tensor(near)][:, 0, 0, 0].tolist()
            stand_in = [next((g for g in good if g >= i), good[0]) % 250 for i in near]
            assert shown == stand_in
    for number in broken:
        assert sum(f"{number:04d}.png" in message for message in caplog.messages) <= 2


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "streamed"])
def test_a_set_of_which_more_is_broken_is_refused(name, limit, tmp_path):
    count, broken = REFUSED[name]
    folder = WRITERS["folder"](tmp_path / "own", values_of(count, broken))
    with pytest.raises(DdpmError, match=rf"\b{len(broken)} of {count}\b.*cannot be read"):
        image_folder(folder, 4, 3, limit)


@pytest.mark.parametrize("form", sorted(WRITERS))
@pytest.mark.parametrize("workers", [0, 1])
def test_an_accepted_set_is_read_to_the_end(form, workers, tmp_path):
    values = values_of(600, set(range(300, 306)))
    images = open_form(form, WRITERS[form](tmp_path / form, values), 0)
    order = DataOrder(600, 100, seed=0)
    batches = list(training_batches(images, order, 0, 6, slice(100), workers=workers))
    assert [len(batch) for batch in batches] == [100] * 6


def test_one_good_image_among_broken_ones_makes_no_set(tmp_path):
    folder = WRITERS["folder"](tmp_path / "own", [flat(9), *JUNK])
    with pytest.raises(DdpmError, match="3 of 4"):
        open_data(folder, image_size=4, channels=3)
