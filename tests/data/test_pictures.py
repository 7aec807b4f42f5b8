"""What counts as an image of a folder, what is left out, and the line that says both."""

import logging
import os
import re
import socket

import pytest

from data.form_makers import (
    KINDS,
    SIZE,
    encoded,
    somebody_elses,
    taken,
    values,
    without_rights,
    write,
    write_pictures,
)
from ddpm.data import open_data
from ddpm.errors import DdpmError


def said(path, caplog, split="train"):
    """The images of a folder, and the line about them."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="ddpm"):
        source = open_data(path, split, **SIZE)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    return source, "\n".join(line for line in lines if "image" in line)


ENDINGS = ["png", "apng", *KINDS, "PNG", "JPG", "JPEG", "Jfif", "TIF", "Tiff", "GIF", "AVIF", "BMP"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_this_ending_is_read(ending, tmp_path, caplog):
    kind = KINDS.get(ending.lower(), "PNG")
    mode = {"pbm": "1", "pgm": "L"}.get(ending, "RGB")
    write(tmp_path / "x" / f"a.{ending}", encoded(255, kind, mode=mode))
    source, line = said(tmp_path, caplog)
    assert values(source) == [pytest.approx(255, abs=3)]
    assert f"1 {ending.lower()}" in line


NAMES = [
    "a b.png",
    "a[1].png",
    "*.png",
    "ünï–☃.png",
    "-n.png",
    "a.b.c.png",
    "a\nb.png",
    "%s{0}.png",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:14])
def test_a_file_of_this_name_is_read(name, tmp_path, caplog):
    path = os.path.join(os.fsencode(tmp_path / "own"), os.fsencode(name))
    os.mkdir(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(encoded(7))
    source, line = said(tmp_path / "own", caplog)
    assert values(source) == [7]
    assert "1 png" in line


def frames(kind):
    return lambda path: write(path, encoded(90, kind, frames=3))


def file(path):
    write(path, encoded(90))


def dangling(path):
    path.symlink_to("nowhere")


def to_itself(path):
    path.symlink_to(path.name)


def listening(path):
    """A socket; its whole path may not be longer than 108 characters."""
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


SYSTEM = ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", "@Recycle"]
HIDDEN = [".ipynb_checkpoints/a-checkpoint", ".trash/a", ".Trash-1000/files/a", ".git/objects/a"]
HIDDEN += [".thumbnails/normal/a", "sub/.cache/deep/a", "._a", ".a", "sub/.a", ".AppleDouble/a"]
OTHER_IMAGES = [
    "heic",
    "HEIC",
    "heif",
    "jxl",
    "svg",
    "psd",
    "cr2",
    "nef",
    "dng",
    "arw",
    "exr",
    "jp2",
]
NO_IMAGES = ["notes.txt", "Thumbs.db", "desktop.ini", "labels.csv", "film.mp4", "png", "README"]
NO_IMAGES += ["a.png.txt", "a.png~", "a.png.part", "a.jpg.crdownload", "a.png_original"]
LEFT_OUT = {
    **{f"{name}.png": (file, "hidden") for name in HIDDEN},
    **{f"{name}/a.png": (file, "system") for name in [*SYSTEM, "System Volume Information"]},
    "sub/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": (file, "system"),
    **{f"a.{ending}": (file, f".{ending.lower()}") for ending in OTHER_IMAGES},
    **{name: (file, "other files") for name in NO_IMAGES},
    "dangling.png": (dangling, "broken links"),
    "itself.png": (to_itself, "broken links"),
    "fifo.png": (os.mkfifo, "not files"),
    "socket.png": (listening, "not files"),
    "moving.gif": (frames("GIF"), "several frames"),
    "moving.png": (frames("PNG"), "several frames"),
    "moving.apng": (frames("PNG"), "several frames"),
    "moving.webp": (frames("WEBP"), "several frames"),
    "pages.tif": (frames("TIFF"), "several frames"),
    "pages.TIFF": (frames("TIFF"), "several frames"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_this_is_left_out_and_counted(name, tmp_path, caplog):
    make, reason = LEFT_OUT[name]
    colours = write_pictures(tmp_path, ["z.png", "sub/y.png"])
    make(tmp_path / name)
    source, line = said(tmp_path, caplog)
    assert taken(source, colours) == ["sub/y.png", "z.png"]
    assert "2 images" in line
    assert "left out 1" in line
    assert re.search(rf"\b1 {re.escape(reason.rstrip('s'))}", line), line


def test_a_picture_with_a_second_view_is_its_first(tmp_path, caplog):
    write(tmp_path / "a.mpo", encoded(90, "MPO", frames=2))
    write(tmp_path / "b.jpg", encoded(60, "MPO", frames=2))  # as telephones name it
    source, line = said(tmp_path, caplog)
    assert values(source) == [pytest.approx(90, abs=3), pytest.approx(60, abs=3)]
    assert "left out" not in line


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_one_frame_is_a_picture(kind, tmp_path, caplog):
    write(tmp_path / f"a.{kind.lower()}", encoded(90, kind, save_all=True))
    source, line = said(tmp_path, caplog)
    assert values(source) == [pytest.approx(90, abs=3)]
    assert "left out" not in line


def test_the_line_gives_every_number(tmp_path, caplog):
    colours = write_pictures(tmp_path / "own", [*(f"{i}.png" for i in range(48))])
    colours |= write_pictures(tmp_path / "own", [f"{i}.tif" for i in range(12)], first=100)
    write_pictures(tmp_path / "own", [f"test/{i}.png" for i in range(10)], first=200)
    write_pictures(tmp_path / "own", [f".trash/{i}.png" for i in range(4)])
    write(tmp_path / "own" / "a.heic", encoded(1))
    for i in range(2):
        write(tmp_path / "own" / f"{i}.gif", encoded(90, "GIF", frames=2))
    source, line = said(tmp_path / "own", caplog)
    assert taken(source, colours) == sorted(colours)
    for word in ("own", "60 images", "48 png", "12 tif", "held out 10", "left out 7"):
        assert word in line
    for word in ("4 hidden", "1 .heic", "2 several frames"):
        assert word in line
    assert line.count("\n") == 0


@pytest.mark.parametrize("place", [".cache/faces", "@eaDir", ".ipynb_checkpoints", "x/.git/y"])
def test_the_path_that_a_user_names_may_be_hidden(place, tmp_path):
    colours = write_pictures(tmp_path / place, ["a.png"])
    assert taken(open_data(tmp_path / place, **SIZE), colours) == ["a.png"]


@pytest.mark.parametrize("place", ["test/.trash/c.png", ".git/test/c.png", "test/@eaDir/c.png"])
def test_what_nobody_meant_is_not_measured_either(place, tmp_path):
    colours = write_pictures(tmp_path, ["a.png", "test/b.png", place])
    assert taken(open_data(tmp_path, "test", **SIZE), colours) == ["test/b.png"]
    assert taken(open_data(tmp_path, **SIZE), colours) == ["a.png"]


def test_folders_that_are_called_like_pictures_are_searched(tmp_path):
    colours = write_pictures(tmp_path, ["a.png/b.png", "c.d/e.png"])
    assert taken(open_data(tmp_path, **SIZE), colours) == sorted(colours)


# Links as (from, to); "own" is opened. What lies elsewhere is taken by its link alone.
LINKS = {
    "a linked file": [("own/b.png", "far/x.png")],
    "a linked folder": [("own/more", "far")],
    "a link to a linked folder": [("own/more", "hop"), ("hop", "far")],
    "two links to a folder": [("own/more", "far"), ("own/again", "far")],
    "two links to a file": [("own/b.png", "far/x.png"), ("own/c.png", "far/x.png")],
    "a file linked below a linked folder": [("own/more", "far"), ("own/c.png", "far/x.png")],
    "a link to the folder itself": [("own/loop", "own"), ("own/b.png", "far/x.png")],
    "a link to the folder above": [("own/sub/loop", "."), ("own/b.png", "far/x.png")],
    "a link under another ending": [("own/b.png", "far/blob"), ("far/blob", "far/x.png")],
    "a hidden link beside another": [("own/.b", "far"), ("own/z", "far")],
    "git-annex, DVC": [("own/b.png", "own/.git/annex/objects/SHA256-x.png")],
    "a store below": [("own/b.png", "own/blobs/3f1a")],
    "the folder is a link": [("own/more", "far"), ("alias", "own")],
}


@pytest.mark.parametrize("case", LINKS)
def test_links_are_followed_and_each_file_counts_once(case, tmp_path, monkeypatch):
    colours = {"a": 5, "x": 6}
    write(tmp_path / "own" / "a.png", encoded(5))
    (tmp_path / "own" / "sub").mkdir()
    stored = [target for _, target in LINKS[case] if target.startswith("own/")]
    write(tmp_path / (stored[0] if stored else "far/x.png"), encoded(6))
    for link, target in reversed(LINKS[case]):
        (tmp_path / link).symlink_to(os.path.relpath(tmp_path / target, (tmp_path / link).parent))
    path = tmp_path / ("alias" if case == "the folder is a link" else "own")
    assert taken(open_data(path, **SIZE), colours) == ["a", "x"]


def test_a_link_to_the_folder_above_takes_no_more_than_is_there(tmp_path):
    write(tmp_path / "own" / "a.png", encoded(5))
    (tmp_path / "own" / "up").symlink_to("..")
    assert values(open_data(tmp_path / "own", **SIZE)) == [5]


EMPTY = {
    "nothing": ([], []),
    "folders alone": (["sub/deep/"], []),
    "hidden ones alone": ([".trash/a.png", ".b.png"], ["2 hidden"]),
    "thumbnails alone": (["@eaDir/a.png"], ["1 system"]),
    "photographs of a telephone": (["a.heic", "b.HEIC"], ["2 .heic"]),
    "texts": (["a.txt", "b.md", "c.txt"], ["3 other files"]),
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_folder_without_images_says_what_it_holds(case, tmp_path, capsys):
    places, words = EMPTY[case]
    (tmp_path / "own").mkdir()
    for place in places:
        path = tmp_path / "own" / place
        path.mkdir(parents=True) if place.endswith("/") else write(path, encoded(1))
    with pytest.raises(DdpmError, match=r"own holds no images") as error:
        open_data(tmp_path / "own", **SIZE)
    for word in words:
        assert word in str(error.value)


def test_a_folder_of_films_alone_says_so(tmp_path):
    write(tmp_path / "a.gif", encoded(90, "GIF", frames=3))
    with pytest.raises(DdpmError, match="1 several frames"):
        open_data(tmp_path, **SIZE)


@pytest.mark.parametrize("place", ["", "sub", "sub/deep"])
def test_a_folder_that_may_not_be_listed_is_named_with_the_reason(place, tmp_path):
    with somebody_elses() as own:
        write_pictures(own, ["a.png", "sub/b.png", "sub/deep/c.png"])
        assert len(open_data(own, **SIZE)) == 3
        (own / place).chmod(0)
        with without_rights(), pytest.raises(DdpmError, match="Permission denied") as error:
            open_data(own, **SIZE)
        assert str(own / place) in str(error.value)


def test_a_link_whose_target_may_not_be_reached_is_named(tmp_path):
    with somebody_elses() as own:
        write_pictures(own, ["a.png"])
        write_pictures(own.parent / "far", ["b.png"])
        (own / "link.png").symlink_to(own.parent / "far" / "b.png")
        assert len(open_data(own, **SIZE)) == 2
        (own.parent / "far").chmod(0)
        with without_rights(), pytest.raises(DdpmError, match="Permission denied") as error:
            open_data(own, **SIZE)
        assert "link.png" in str(error.value)
