"""Folders of images: formats, colour modes, geometry, broken files and streaming."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.config import DataConfig
from ddpm.data import DataOrder, MemoryImages, open_data, training_batches
from ddpm.data.decode import decode_image as decode_bytes
from ddpm.data.folder import image_folder
from ddpm.data.streamed import StreamedImages
from ddpm.errors import DdpmError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def decode_image(path, image_size, channels):
    """The image in a file."""
    return decode_bytes(path.read_bytes(), image_size, channels)


def write_images(folder, n, side=4):
    """`n` PNGs whose pixels all hold the image's number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (side, side), (i, i, i)).save(folder / f"{i:03d}.png")


def stripes(horizontal):
    """24 pixels of red, green and blue thirds along one axis, 8 along the other."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:16], pixels[:, 16:] = RED, GREEN, BLUE
    return Image.fromarray(pixels if horizontal else pixels.transpose(1, 0, 2).copy())


def colours(image):
    """The different colours of a [3, h, w] tensor."""
    return {tuple(c) for c in image.flatten(1).T.tolist()}


def test_images_are_found_at_any_depth_in_every_format(tmp_path):
    places = ["a.png", "b/c.jpg", "b/d/e.JPEG", "b/d/f/g.webp", "b/d/f/h/i.bmp"]
    for i, place in enumerate(places):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if place.endswith("webp") else {}
        Image.new("RGB", (6, 6), (50 * i,) * 3).save(path, **options)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    data = image_folder(tmp_path, 6, 3)
    assert data.images.shape == (5, 3, 6, 6)
    assert data.images[:, 0, 0, 0].tolist() == [0, 50, 100, 150, 200]


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("L", 90), ("RGB", (90, 90, 90)), ("RGBA", (90, 90, 90, 255)), ("LA", (90, 255))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_modes_become_the_channels_that_are_asked_for(tmp_path, mode, colour, channels):
    Image.new(mode, (4, 4), colour).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 4, channels)
    assert image.shape == (channels, 4, 4)
    assert image.dtype == torch.uint8
    assert image.unique().tolist() == [90]


def test_a_palette_image_shows_its_palettes_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png")
    assert colours(decode_image(tmp_path / "a.png", 4, 3)) == {BLUE}


def test_colour_becomes_grey_by_the_luma_of_bt_601(tmp_path):
    Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / "a.png")
    grey = decode_image(tmp_path / "a.png", 2, 1)
    assert abs(int(grey[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1


def test_rows_and_columns_keep_their_places(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 2, 3)
    assert image.tolist() == pixels.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize("horizontal", [True, False])
def test_the_middle_of_the_longer_side_is_kept(tmp_path, horizontal):
    stripes(horizontal).save(tmp_path / "a.png")
    assert colours(decode_image(tmp_path / "a.png", 8, 3)) == {GREEN}


@pytest.mark.parametrize("horizontal", [True, False])
def test_shrinking_keeps_the_middle_too(tmp_path, horizontal):
    picture = stripes(horizontal)
    picture.resize((picture.width * 4, picture.height * 4), 0).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 16, 3)
    # A bicubic kernel at half the size reaches two pixels across the edge of the crop.
    assert colours(image[:, 2:-2, 2:-2]) == {GREEN}
    assert image[1].min() > 200
    assert image[[0, 2]].max() < 40


def test_the_whole_shorter_side_is_kept(tmp_path):
    # Rows 0..3 red, 4..7 green, and the width is cropped: both colours must survive.
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:4], pixels[4:] = RED, GREEN
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png", 8, 3)
    assert colours(image[:, :4]) == {RED}
    assert colours(image[:, 4:]) == {GREEN}


def test_exif_rotation_is_undone(tmp_path):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4], upright[4:] = 255, 0
    # Orientation 6: the viewer turns the stored picture by 90 degrees clockwise.
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.png", exif=exif)
    image = decode_image(tmp_path / "a.png", 8, 3)
    assert image.tolist() == upright.transpose(2, 0, 1).tolist()


def test_bytes_decode_like_the_file_they_come_from(tmp_path):
    stripes(True).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    assert torch.equal(decode_image(data, 8, 3), decode_image(tmp_path / "a.jpg", 8, 3))


@pytest.mark.parametrize("limit", [2**30, 0])
def test_a_broken_file_is_named_counted_and_skipped(tmp_path, caplog, limit):
    write_images(tmp_path, 100)
    (tmp_path / "050.png").write_bytes(b"not an image at all")
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        data = image_folder(tmp_path, 4, 3, memory_limit=limit)
    assert len(data) == 99
    assert data[torch.arange(99)][:, 0, 0, 0].tolist() == [i for i in range(100) if i != 50]
    assert "050.png" in caplog.text
    assert "skipped 1 of 100 images" in caplog.text


@pytest.mark.parametrize("limit", [2**30, 0])
def test_more_than_one_percent_broken_is_refused(tmp_path, limit):
    write_images(tmp_path, 100)
    for name in ("007.png", "093.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DdpmError, match=r"2 of 100 images cannot be read, first .*007\.png"):
        image_folder(tmp_path, 4, 3, memory_limit=limit)


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow may warn of damage besides
def test_damage_of_any_kind_counts_as_broken(tmp_path):
    """Truncations and flipped bytes at many places of every format end in a DdpmError or a picture.

    Whatever Pillow raises inside must not get out.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    good = Image.fromarray(pixels)
    rng = np.random.default_rng(1)
    outcomes = set()
    for suffix in ("png", "jpg", "webp", "bmp"):
        exif = {} if suffix == "bmp" else {"exif": good.getexif()}
        path = tmp_path / suffix / f"a.{suffix}"
        path.parent.mkdir()
        good.save(path, **exif)
        data = path.read_bytes()
        for _ in range(40):
            cut = bytearray(data[: rng.integers(0, len(data))])
            flipped = bytearray(data)
            for place in rng.integers(0, min(len(data), 200), 3):
                flipped[place] ^= int(rng.integers(1, 256))
            for damaged in (cut, flipped):
                path.write_bytes(damaged)
                try:
                    assert image_folder(path.parent, 4, 3).shape == (3, 4, 4)
                    outcomes.add("read")
                except DdpmError:
                    outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("limit", [2**30, 0])
def test_a_folder_without_images_is_refused(tmp_path, limit):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DdpmError, match="holds no images"):
        image_folder(tmp_path, 4, 3, memory_limit=limit)


def test_a_small_folder_is_held_in_memory_and_a_big_one_streamed(tmp_path):
    write_images(tmp_path, 3)
    pixels = 3 * 4 * 4 * 3
    assert isinstance(image_folder(tmp_path, 4, 3, memory_limit=pixels), MemoryImages)
    assert isinstance(image_folder(tmp_path, 4, 3, memory_limit=pixels - 1), StreamedImages)


@pytest.fixture
def both(tmp_path):
    """The same folder of ten random pictures of different sizes, in memory and streamed."""
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(0, 256, (5 + i, 14 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return image_folder(tmp_path, 6, 3), image_folder(tmp_path, 6, 3, memory_limit=0)


def test_streamed_images_equal_those_in_memory(both):
    memory, streamed = both
    assert (len(streamed), streamed.shape, streamed.grey_levels) == (10, (3, 6, 6), 256)
    indices = torch.tensor([9, 0, 3, 3])
    assert torch.equal(streamed[indices], memory[indices])


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_equal_those_in_memory(both, workers):
    memory, streamed = both
    order = DataOrder(10, 4, seed=3)
    share = slice(1, 4)
    expected = list(training_batches(memory, order, 2, 8, share))
    batches = list(training_batches(streamed, order, 2, 8, share, workers=workers))
    assert len(batches) == len(expected) == 6
    for batch, wanted in zip(batches, expected, strict=True):
        assert torch.equal(batch, wanted)


def test_a_file_that_breaks_while_training_stops_the_run_with_its_name(both):
    _, streamed = both
    streamed.paths[4].write_bytes(b"gone bad")
    with pytest.raises(DdpmError, match=r"4\.png"):
        streamed[torch.tensor([4])]


def test_train_and_test_subfolders_are_the_splits(tmp_path):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 2)
    config = DataConfig(path=str(tmp_path), image_size=4)
    assert len(open_data(config)) == 3
    assert len(open_data(config, "test")) == 2


def test_a_folder_without_splits_is_all_for_training(tmp_path):
    write_images(tmp_path / "cats", 2)
    write_images(tmp_path / "dogs", 3)
    config = DataConfig(path=str(tmp_path), image_size=4)
    assert len(open_data(config)) == 5
    with pytest.raises(DdpmError, match="no held-out split"):
        open_data(config, "test")


def test_no_path_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(DdpmError, match="--data PATH"):
        open_data(DataConfig())
    with pytest.raises(DdpmError, match="does not exist"):
        open_data(DataConfig(path=str(tmp_path / "nowhere")))


def test_a_file_that_is_no_data_set_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DdpmError, match="no folder and no Parquet file"):
        open_data(DataConfig(path=str(path)))


def test_the_digits_are_opened_by_name_and_only_at_their_own_size():
    config = DataConfig(path="digits", image_size=8, channels=1)
    assert (len(open_data(config)), len(open_data(config, "test"))) == (1500, 297)
    with pytest.raises(DdpmError, match="8x8 and grey"):
        open_data(DataConfig(path="digits"))
