"""Names of images: written on any system, or refused on every one."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm.codec.names import check_names, pack_names, unpack_names, why_not, written_names
from ddpm.errors import DdpmError

GOOD = ["a.png", "b/c d.jpeg", "ä/日本.png", "console.png", "a.b/c.tar.png", "-x.png"]


def test_good_names_stay():
    check_names(GOOD)
    assert unpack_names(pack_names(GOOD), len(GOOD)) == tuple(GOOD)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/x.png", "root"),
        ("../x.png", "out of"),
        ("a/../../x.png", "out of"),
        ("a//b.png", "empty part"),
        ("./a.png", "empty part"),
        ("", "empty part"),
        ("a/", "empty part"),
        ("C:/x.png", "character"),
        ("a\\b.png", "character"),
        ("a\nb.png", "character"),
        ("a\0b", "character"),
        ("x\x7f.png", "character"),
        ("\ud800.png", "character"),
        ("wh?t.png", "character"),
        ("a./b.png", "full stop"),
        ("a.png ", "space"),
        ("con", "device"),
        ("a/NUL.png", "device"),
        ("Com1.tar.gz", "device"),
        ("lpt².png", "device"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
    ],
)
def test_a_name_that_not_every_system_can_write_is_refused(name, reason):
    assert reason in why_not(name)
    with pytest.raises(DdpmError, match="--no-names"):
        check_names(["good.png", name])


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.png"),
        ("a.png", "A.PNG"),
        ("é.png", "e\u0301.png"),
        ("straße.png", "STRASSE.png"),
        ("a/x.png", "A/X.png"),
    ],
)
def test_names_that_fall_together_somewhere_are_refused(names):
    with pytest.raises(DdpmError, match="one and the same on some systems"):
        check_names(names)


@pytest.mark.parametrize("names", [("a", "a/b.png"), ("x/Y/z.png", "X/y")])
def test_a_name_cannot_be_that_of_a_folder_too(names):
    for order in (names, names[::-1]):
        with pytest.raises(DdpmError, match="of an image and of a folder"):
            check_names(order)


def test_images_are_written_as_png_and_keep_their_ending_only_where_they_must():
    assert written_names(["a.jpg", "b/a.png", "c"]) == ("a.png", "b/a.png", "c.png")
    assert written_names(["a.jpg", "A.png", "x.bmp"]) == ("a.jpg.png", "A.png.png", "x.png")
    with pytest.raises(DdpmError, match="one and the same"):
        written_names(["a.jpg", "a.png", "a.jpg.png"])


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_whatever_passes_stays_below_the_folder_and_apart(names):
    try:
        out = written_names(names)
    except DdpmError:
        return
    places = {os.path.normpath(f"/root/{name}") for name in out}
    assert len(places) == len(names)
    assert all(place.startswith("/root/") for place in places)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", pack_names(["a"])[:-1], pack_names(["a", "b"])],
)
def test_damaged_names_are_told(data):
    with pytest.raises(DdpmError, match="names in the file are damaged"):
        unpack_names(data, 1)


def test_names_cannot_ask_for_all_memory():
    bomb = pack_names(["x" * (1 << 27)])
    assert len(bomb) < 1 << 20
    with pytest.raises(DdpmError, match="damaged"):
        unpack_names(bomb, 1)
