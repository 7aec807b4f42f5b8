"""What `compress` and `decompress` write, and what they leave as it is."""

import io
import os
import shutil
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.codec import parse
from ddpm.model import Ddpm
from full_range import full_range_model, one_thread
from helpers import checkpoint_path
from mistakes import everything_below, refused

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with set/, three pictures, and what a grey model makes of all and of one."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "set").mkdir()
    for i, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(folder / "set" / f"{i}.png")
    with one_thread():
        full_range_model(1).save(folder / "grey.safetensors")
        for source, out in (("set", "all.ddpm"), ("set/1.png", "one.ddpm")):
            arguments = [folder / "grey.safetensors", folder / source, "-o", folder / out]
            assert main(["compress", *map(str, arguments), "--steps", "2"]) == 0
    return folder


@pytest.fixture
def place(tmp_path, made, monkeypatch):
    """The working folder: a run, three pictures in set/, and x.ddpm, which holds them."""
    monkeypatch.chdir(tmp_path)
    checkpoint = checkpoint_path(tmp_path / "run", 3)
    checkpoint.parent.mkdir(parents=True)
    shutil.copy(made / "grey.safetensors", checkpoint)
    shutil.copytree(made / "set", tmp_path / "set")
    shutil.copy(made / "all.ddpm", tmp_path / "x.ddpm")
    shutil.copy(made / "one.ddpm", tmp_path / "one.ddpm")
    with one_thread():
        yield tmp_path


def compress(source, out):
    """The command's exit code."""
    return main(["compress", "run", str(source), "-o", str(out), "--steps", "2"])


def decompress(out, file="x.ddpm"):
    """The command's exit code."""
    return main(["decompress", "run", str(file), "-o", str(out)])


def pixels(path):
    """Of a picture."""
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def link(path, target):
    """A symbolic link."""
    path.symlink_to(target)


def text(path, content=b"precious"):
    """A file that must stay."""
    path.write_bytes(content)


# Where the archive is told to go, and what makes that place first.
ARCHIVE_OVER = {
    "its-only-picture": ("set/0.png", "set/0.png", None),
    "a-picture-of-its-set": ("set", "set/1.png", None),
    "a-picture-by-another-way": ("set", "run/../set/./1.png", None),
    "a-picture-by-a-symbolic-link": ("set", "y", lambda p: link(p / "y", "set/1.png")),
    "a-picture-by-a-hard-link": ("set", "y", lambda p: os.link(p / "set" / "1.png", p / "y")),
    "another-picture": ("set", "z.png", lambda p: Image.fromarray(PICTURES[0]).save(p / "z.png")),
    "the-models-file": ("set", checkpoint_path("run", 3), None),
    "a-file-of-the-run": ("set", "run/notes.txt", lambda p: text(p / "run" / "notes.txt")),
    "another-file": ("set", "y", lambda p: text(p / "y")),
    "an-empty-file": ("set", "y", lambda p: text(p / "y", b"")),
    "a-short-file": ("set", "y", lambda p: text(p / "y", b"\xdd")),
    "a-file-called-ddpm": ("set", "y.ddpm", lambda p: text(p / "y.ddpm")),
    "a-folder": ("set", "run", None),
    "its-own-folder": ("set", "set", None),
}


@pytest.mark.parametrize("name", ARCHIVE_OVER)
def test_compressing_replaces_nothing_but_archives(name, place, capsys):
    source, out, make = ARCHIVE_OVER[name]
    if make:
        make(place)
    before = everything_below(place)
    command = ["compress", "run", source, "-o", out, "--steps", "2"]
    refused(command, capsys, str(out).rpartition("/")[2])
    assert everything_below(place) == before


def test_a_pipe_is_no_place_for_an_archive_and_is_not_waited_for(place):
    os.mkfifo("pipe")
    codes = []
    work = threading.Thread(target=lambda: codes.append(compress("set", "pipe")), daemon=True)
    work.start()
    work.join(timeout=9)
    assert codes == [2]
    assert (place / "pipe").is_fifo()


def test_an_archive_is_replaced_and_that_is_said(place, capsys):
    capsys.readouterr()
    assert compress("set/1.png", "x.ddpm") == 0
    assert "replaced" in capsys.readouterr().out
    assert parse((place / "x.ddpm").read_bytes()).header.count == 1
    assert compress("set/1.png", "new.ddpm") == 0
    assert "replaced" not in capsys.readouterr().out


def test_an_archive_beside_its_pictures_is_no_picture(place, capsys):
    assert compress("set", "set/own.ddpm") == 0
    assert compress("set", "set/own.ddpm") == 0
    assert parse((place / "set" / "own.ddpm").read_bytes()).header.count == 3


def test_the_folder_of_an_archive_is_made(place):
    assert compress("set", "new/folder/x.ddpm") == 0
    assert decompress("out", "new/folder/x.ddpm") == 0


def test_names_as_long_as_the_file_system_takes(place):
    name = "é" * 125 + "a.png"
    (place / "set" / "1.png").rename(place / "set" / name)
    archive = "x" * 250 + ".ddpm"
    assert compress("set", archive) == 0
    assert decompress("out", archive) == 0
    assert np.array_equal(pixels(place / "out" / name), PICTURES[1])


def folder_with(*names):
    """A function that makes out/ with these files."""

    def make(place):
        (place / "out").mkdir()
        for name in names:
            text(place / "out" / name)

    return make


def single(place):
    """x.ddpm with one picture only."""
    (place / "one.ddpm").replace(place / "x.ddpm")


def single_and(make):
    """The same, and what `make` makes."""

    def both(place):
        single(place)
        make(place)

    return both


# Where the pictures are told to go, and what makes that place first.
PICTURES_OVER = {
    "the-first-name": ("out", folder_with("0.png")),
    "the-last-name": ("out", folder_with("2.png")),
    "a-folder-of-a-name": ("out", lambda p: (p / "out" / "1.png").mkdir(parents=True)),
    "a-link-to-nowhere": (
        "out", lambda p: (p / "out").mkdir() or link(p / "out" / "1.png", "gone")
    ),
    "all-the-names": ("out/", folder_with("0.png", "1.png", "2.png")),
    "a-picture": ("y.png", single_and(lambda p: text(p / "y.png"))),
    "a-picture-in-capitals": ("y.PNG", single_and(lambda p: text(p / "y.PNG"))),
    "its-original": ("set/1.png", single),
    "the-originals": ("set", None),
    "a-file-in-place-of-a-folder": ("y", lambda p: text(p / "y")),
    "the-archive": ("x.ddpm", None),
    "the-archive-of-one": ("x.ddpm", single),
    "the-models-file": (checkpoint_path("run", 3), None),
    "a-pipe": ("pipe", lambda p: os.mkfifo(p / "pipe")),
    "a-pipe-of-one": ("pipe.png", single_and(lambda p: os.mkfifo(p / "pipe.png"))),
    "below-a-file": ("y/out", lambda p: text(p / "y")),
    **{
        f"many-in-one-{ending}": (f"y.{ending}", None)
        for ending in ("png", "PNG")
    },
    **{
        f"one-as-{ending}": (f"y.{ending}", single)
        for ending in (
            *("jpg", "jpeg", "JPG", "webp", "bmp", "tif", "tiff", "gif", "avif", "ppm", "pgm"),
            *("jfif", "heic"),
        )
    },
    **{f"many-as-{ending}": (f"y.{ending}", None) for ending in ("jpg", "webp", "tiff")},
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES_OVER)
def test_decompressing_overwrites_nothing(name, place, capsys):
    out, make = PICTURES_OVER[name]
    if make:
        make(place)
    before = everything_below(place)
    refused(["decompress", "run", "x.ddpm", "-o", out], capsys)
    assert everything_below(place) == before


# Where pictures may go, and what makes that place first.
GOOD_PLACES = {
    "a-new-folder": ("out", None),
    "a-folder-below-new-ones": ("a/b/c", None),
    "an-empty-folder": ("out", folder_with()),
    "a-folder-with-other-files": ("out", folder_with("01.png", "a.txt", "3.png", "000000.png")),
    "a-folder-in-that-of-the-originals": ("set/again", None),
    "a-folder-with-a-dot": ("v1.0", None),
    "a-folder-with-a-dotted-word": ("my.pictures", None),
    "a-hidden-folder": (".out", None),
    "a-folder-with-a-slash": ("out/", None),
}


@pytest.mark.parametrize("name", GOOD_PLACES)
def test_pictures_come_to_lie_beside_what_is_there(name, place):
    out, make = GOOD_PLACES[name]
    if make:
        make(place)
    before = everything_below(place)
    assert decompress(out) == 0
    after = everything_below(place)
    assert {path: after[path] for path in before} == before
    for i, picture in enumerate(PICTURES):
        assert np.array_equal(pixels(place / out / f"{i}.png"), picture)


@pytest.mark.parametrize("out", ["y.png", "y.PNG", "new/y.png", "y.z.png", "folder"])
def test_one_picture_is_a_file_or_lies_in_a_folder(out, place):
    single(place)
    assert decompress(out) == 0
    file = place / out if out.lower().endswith(".png") else place / out / "000000.png"
    assert np.array_equal(pixels(file), PICTURES[1])


def give(monkeypatch, data):
    """Make `data` what comes in."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_an_archive_is_read_from_what_comes_in(place, monkeypatch):
    give(monkeypatch, (place / "x.ddpm").read_bytes())
    assert decompress("out", "-") == 0
    assert np.array_equal(pixels(place / "out" / "2.png"), PICTURES[2])


def test_an_archive_is_read_from_a_named_pipe(place):
    data = (place / "x.ddpm").read_bytes()
    os.mkfifo("pipe")
    writer = threading.Thread(target=(place / "pipe").write_bytes, args=[data], daemon=True)
    writer.start()
    assert decompress("out", "pipe") == 0
    writer.join(timeout=9)
    assert np.array_equal(pixels(place / "out" / "0.png"), PICTURES[0])


def test_a_part_that_comes_in_is_a_part(place, monkeypatch, capsys):
    give(monkeypatch, (place / "x.ddpm").read_bytes()[:-9])
    capsys.readouterr()
    assert decompress("out", "-") == 0
    assert "not exact" in capsys.readouterr().out


def test_numbers_instead_of_names(place):
    assert main(["decompress", "run", "x.ddpm", "-o", "out", "--no-names"]) == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == [
        f"{i:06d}.png" for i in range(3)
    ]
    assert main(["compress", "run", "set", "-o", "bare.ddpm", "--steps", "2", "--no-names"]) == 0
    assert parse((place / "bare.ddpm").read_bytes()).header.names is None


def test_some_of_the_pictures(place, capsys):
    only = ["--only", "2.png", "0"]
    assert main(["decompress", "run", "x.ddpm", "-o", "out", *only]) == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == ["0.png", "2.png"]
    assert np.array_equal(pixels(place / "out" / "2.png"), PICTURES[2])
    assert main(["decompress", "run", "x.ddpm", "-o", "one.png", "--only", "1.png"]) == 0
    assert np.array_equal(pixels(place / "one.png"), PICTURES[1])
    for bad in ("3", "9.png", "-1"):
        refused(["decompress", "run", "x.ddpm", "-o", "y", f"--only={bad}"], capsys, bad)


def test_a_name_that_leads_out_is_refused_and_numbers_are_offered(place, capsys):
    file = parse((place / "x.ddpm").read_bytes())
    bad = file.header.__class__(**vars(file.header) | {"names": ("../a.png", "b.png", "c.png")})
    (place / "bad.ddpm").write_bytes(bad.pack() + file.payload)
    before = everything_below(place)
    refused(["decompress", "run", "bad.ddpm", "-o", "out"], capsys, "../a.png", "--no-names")
    assert everything_below(place) == before
    assert main(["decompress", "run", "bad.ddpm", "-o", "out", "--no-names"]) == 0


NO_ARCHIVES = {
    "nothing": (b"", ""),
    "text": (b"some text", ""),
    "a-picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), ""),
    "a-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "lfs"),
    "a-web-page": (b"<!DOCTYPE html><html></html>", ""),
}


@pytest.mark.parametrize("way", ["file", "pipe"])
@pytest.mark.parametrize("name", NO_ARCHIVES)
def test_what_is_no_archive_is_refused(name, way, place, monkeypatch, capsys):
    data, word = NO_ARCHIVES[name]
    text(place / "y.ddpm", data)
    give(monkeypatch, data)
    before = everything_below(place)
    source = "y.ddpm" if way == "file" else "-"
    refused(["decompress", "run", source, "-o", "out"], capsys, word if way == "file" else "")
    assert everything_below(place) == before


@pytest.mark.parametrize("source", ["set", "gone.ddpm", "gone/x.ddpm", "", "run"])
def test_what_holds_no_archive_is_named(source, place, capsys):
    before = everything_below(place)
    refused(["decompress", "run", source, "-o", "out"], capsys, source)
    assert everything_below(place) == before


def test_pictures_that_another_command_wrote_meanwhile_stay(place, monkeypatch, capsys):
    really = Ddpm.decompress

    def slow(*args, **options):
        (place / "out").mkdir()
        text(place / "out" / "1.png")
        return really(*args, **options)

    with monkeypatch.context() as other:
        other.setattr(Ddpm, "decompress", slow)
        refused(["decompress", "run", "x.ddpm", "-o", "out"], capsys, "1.png is there already")
    assert everything_below(place / "out") == {place / "out" / "1.png": b"precious"}
    (place / "out" / "1.png").unlink()
    assert decompress("out") == 0


def test_a_place_that_is_no_folder_is_told_before_anything_is_decoded(place, monkeypatch, capsys):
    monkeypatch.setattr(Ddpm, "decompress", None)
    text(place / "out")
    for out in ("out", "out/below/x"):
        refused(["decompress", "run", "x.ddpm", "-o", out], capsys, "out is no folder")
    refused(["decompress", "run", "one.ddpm", "-o", "out/x.png"], capsys, "out is no folder")
    monkeypatch.setattr(os, "access", lambda *asked: False)
    refused(["decompress", "run", "x.ddpm", "-o", "new"], capsys, "may not be written to")
    assert not (place / "new").exists()


def test_an_archive_that_cannot_be_read_is_not_written_over(place, capsys):
    for data in ((place / "x.ddpm").read_bytes()[:5], b"\xdd\x01" + bytes(30), b""):
        (place / "old.ddpm").write_bytes(data)
        refused(compressed("old.ddpm"), capsys, "old.ddpm is there already", "not overwritten")
        assert (place / "old.ddpm").read_bytes() == data
    refused(compressed("-"), capsys, "not written to the standard output")


def compressed(out):
    """The command."""
    return ["compress", "run", "set", "-o", out, "--steps", "2"]
