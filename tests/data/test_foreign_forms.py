"""What cannot be read is told what it is and what to do, in one sentence."""

import gc
import os
import re
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest

from data.form_makers import (
    LFS_POINTER,
    SIZE,
    WEB_PAGE,
    arrays,
    encoded,
    encrypt,
    somebody_elses,
    train_command,
    without_rights,
    write,
    write_lmdb,
    write_pictures,
    write_table,
    write_tar,
    write_zip,
)
from ddpm.data import open_data
from ddpm.errors import DdpmError
from mistakes import everything_below, refused


def sentence(path, size=8):
    """What is said of a path that cannot be read."""
    with pytest.raises(DdpmError) as error:
        open_data(path, image_size=size, channels=3)
    said = str(error.value)
    assert "\n" not in said
    assert len(said) - len(str(path)) < 500
    return said


NAMES = ["faces.parquet", "faces.zip", "faces.npz", "faces.npy", "faces.tar", "faces.tar.gz"]
NAMES += ["faces.tgz", "faces.lmdb", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"]
NAMES += ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "faces.h5", "faces.bin"]
INSTEAD = {
    "a git-LFS pointer": (LFS_POINTER, "git lfs pull"),
    "a web page": (WEB_PAGE, "web page"),
    "an empty file": (b"", "empty"),
}


@pytest.mark.parametrize("place", ["itself", "its folder"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", INSTEAD)
def test_what_stands_in_place_of_a_file_is_told(case, name, place, tmp_path):
    data, words = INSTEAD[case]
    path = write(tmp_path / "own" / name, data)
    said = sentence(path if place == "itself" else path.parent, 32)
    assert words in said
    assert name in said


@pytest.mark.parametrize("case", INSTEAD)
def test_what_stands_in_place_of_a_picture_is_told(case, tmp_path):
    data, words = INSTEAD[case]
    assert words in sentence(write(tmp_path / "a.png", data))


@pytest.mark.parametrize("case", INSTEAD)
def test_what_stands_in_place_of_all_pictures_of_a_folder_is_told(case, tmp_path):
    data, words = INSTEAD[case]
    for i in range(5):
        write(tmp_path / "own" / f"{i}.png", data)
    assert words in sentence(tmp_path / "own")


PAGES = {
    "in small letters": b"<!doctype html><title>Sign in</title>",
    "without a type": b"<html><body>404</body></html>",
    "after empty lines": b"\r\n\r\n  <!DOCTYPE html><html></html>",
    "in capitals": b"<HTML><HEAD></HEAD></HTML>",
    "with a mark of its bytes' order": b"\xef\xbb\xbf<!DOCTYPE html><html></html>",
    "after a comment": b"<!-- saved -->\n<html></html>",
    "an error in XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
}


@pytest.mark.parametrize("case", PAGES)
def test_web_pages_of_any_kind_are_known(case, tmp_path):
    assert "web page" in sentence(write(tmp_path / "faces.zip", PAGES[case]))


KINDS = {
    **{"h5": "HDF5", "hdf5": "HDF5", "mat": "MATLAB", "tfrecord": "TFRecord", "rec": "library"},
    **{"tfrecords": "TFRecord", "tfrecord-00000-of-00010": "TFRecord", "beton": "library"},
    **{"7z": "archive", "rar": "archive", "pt": "pickle", "pth": "pickle", "pkl": "pickle"},
    **{"csv": "text", "json": "text", "txt": "text", "jsonl": "text", "mp4": "video"},
    **{"H5": "HDF5", "RAR": "archive", "arrow": "Arrow", "zip.part": "download"},
    **{"zip.crdownload": "download", "safetensors": "weights", "docx": "no images"},
    **{"heic": "PNG", "svg": "PNG", "psd": "PNG"},
}


@pytest.mark.parametrize("ending", KINDS)
def test_a_file_of_this_kind_is_told_what_it_is(ending, tmp_path):
    data = bytes(range(1, 200))
    if ending == "docx":
        write_zip(tmp_path / "faces.docx", {"word/document.xml": b"<w/>"})
        said = sentence(tmp_path / "faces.docx")
        assert "faces.docx" in said
    else:
        said = sentence(write(tmp_path / f"faces.{ending}", data))
        assert f"faces.{ending}" in said
        said = said.replace(str(tmp_path / f"faces.{ending}"), "")  # the name alone says too little
        assert KINDS[ending].lower() in said.lower()


@pytest.mark.parametrize("ending", ["h5", "mat", "tfrecord", "pt", "7z"])
@pytest.mark.parametrize("names", [["train", "test"], ["a"]], ids=["several", "with a text"])
def test_a_folder_of_such_files_says_so(names, ending, tmp_path):
    for name in names:
        write(tmp_path / "own" / f"{name}.{ending}", bytes(range(1, 200)))
    if names == ["a"]:
        write(tmp_path / "own" / "README.md", b"# Faces")
    expected = {"h5": "HDF5", "mat": "MATLAB", "tfrecord": "TFRecord", "pt": "pickle"}
    assert expected.get(ending, "archive") in sentence(tmp_path / "own")


def saved(path, **named):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **named)
    return path


def cut(path, share=0.55):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def zip_bytes(tmp_path):
    return write_zip(tmp_path / "inner", {"a.png": encoded(1)}).read_bytes()


def pictures():
    noise = np.random.default_rng(0).bytes(2000)
    return {f"{i}.png": encoded(i) + noise for i in range(9)}


PATHS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NO_SETS = {  # (make, words that tell what is wrong)
    "an encrypted zip": (lambda p: encrypt(write_zip(p / "a.zip", pictures())), "encrypted"),
    "a zip of zips": (
        lambda p: write_zip(p / "a.zip", {"b.zip": zip_bytes(p.parent)}),
        r"no images.*\.zip",
    ),
    "a zip of texts": (lambda p: write_zip(p / "a.zip", {"b.txt": b"x"}), r"no images.*\.txt"),
    "a zip of .heic": (lambda p: write_zip(p / "a.zip", {"b.heic": b"x"}), r"no images.*\.heic"),
    "a zip of nothing": (lambda p: write_zip(p / "a.zip", {}), "no images|empty"),
    "a zip of thumbnails": (
        lambda p: write_zip(p / "a.zip", {"__MACOSX/._a.png": b"x"}),
        "no images",
    ),
    "a tar of texts": (lambda p: write_tar(p / "a.tar", {"b.txt": b"x"}), r"no images.*\.txt"),
    "a zip that ends too early": (lambda p: cut(write_zip(p / "a.zip", pictures())), "copy|downl"),
    "a tar that ends too early": (lambda p: cut(write_tar(p / "a.tar", pictures())), "copy|downl"),
    "a tar.gz that ends too early": (
        lambda p: cut(write_tar(p / "a.tar.gz", pictures())),
        "copy|downl",
    ),
    "an npz that ends too early": (
        lambda p: cut(saved(p / "a.npz", images=arrays(*range(200)))),
        "cannot be read",
    ),
    "an npz of float32": (lambda p: saved(p / "a.npz", x=np.zeros((2, 8, 8, 3), "f4")), "float32"),
    "an npz of float64": (lambda p: saved(p / "a.npz", x=np.zeros((2, 8, 8, 3))), "float64"),
    "an npz of int64": (lambda p: saved(p / "a.npz", x=np.zeros((2, 8, 8), "i8")), "int64"),
    "an npz of uint16": (lambda p: saved(p / "a.npz", x=np.zeros((2, 8, 8), "u2")), "uint16"),
    "an npz of objects": (lambda p: saved(p / "a.npz", x=np.array([{}, 1], "O")), "[Oo]bject"),
    "an npz of latents": (lambda p: saved(p / "a.npz", z=np.zeros((2, 5), "u1")), r"z.*\[2, 5\]"),
    "an npz of nothing": (lambda p: saved(p / "a.npz"), "no images"),
    "an npz of four channels": (
        lambda p: saved(p / "a.npz", x=arrays(1, 2, shape=(8, 8, 4))),
        r"\[2, 8, 8, 4\]",
    ),
    "a Parquet file of texts": (
        lambda p: write_table(p / "a.parquet", ["x"], "caption", False, "string"),
        "no column.*caption",
    ),
    "a Parquet file of paths": (
        lambda p: write_table(
            p / "a.parquet", [{"bytes": None, "path": "x.png"}], "image", False, PATHS
        ),
        r"paths.*x\.png",
    ),
    "a Parquet file that ends too early": (
        lambda p: cut(write_table(p / "a.parquet", list(pictures().values()))),
        "cannot read",
    ),
    "an LMDB of a number alone": (
        lambda p: write_lmdb(p / "a.lmdb", {b"length": b"60"}, one_file=True),
        "no images",
    ),
}


@pytest.mark.parametrize("case", NO_SETS)
def test_what_is_no_set_of_images_is_a_sentence(case, tmp_path):
    make, words = NO_SETS[case]
    path = make(tmp_path / "own")
    said = sentence(path)
    gc.collect()  # a file that was left open would be told now, and is an error
    assert path.name in said
    assert re.search(words, said), said


@pytest.mark.parametrize("ending", ["", ".zip", ".parquet", ".png"])
def test_a_link_to_nowhere_says_where_it_leads(ending, tmp_path):
    (tmp_path / f"own{ending}").symlink_to("was-here.zip")
    said = sentence(tmp_path / f"own{ending}")
    assert "was-here.zip" in said
    assert "link" in said


def test_a_path_that_is_not_there_says_so(tmp_path):
    assert "does not exist" in sentence(tmp_path / "nothing.zip")


@pytest.mark.parametrize(
    "name", ["a.zip", "a.parquet", "a.npz", "a.tar", "a.tar.gz", "a.lmdb", "a.png", "a.bin"]
)
def test_a_file_that_may_not_be_read_says_so(name, tmp_path):
    with somebody_elses() as own:
        good, path = write(own / "good.png", encoded(1)), write(own / name, encoded(1))
        open_data(good, **SIZE)
        path.chmod(0)
        with without_rights():
            said = sentence(path)
    assert "Permission denied" in said
    assert name in said


@pytest.mark.parametrize("place", ["in it", "on the way"])
def test_a_folder_that_may_not_be_entered_says_so(place, tmp_path):
    with somebody_elses() as own:
        write_pictures(own / "sub", ["a.png"])
        open_data(own, **SIZE)
        own.chmod(0)
        with without_rights():
            assert "Permission denied" in sentence(own if place == "in it" else own / "sub")


@pytest.mark.parametrize("name", ["pipe", "pipe.zip", "pipe.png", "pipe.parquet"])
def test_a_pipe_is_refused_and_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    said = []
    waiting = Thread(target=lambda: said.append(sentence(tmp_path / name)), daemon=True)
    waiting.start()
    waiting.join(20)
    if waiting.is_alive():  # let it go, and fail
        os.close(os.open(tmp_path / name, os.O_WRONLY | os.O_NONBLOCK))
    assert said, "waits for the other end, or does not refuse"
    assert name in said[0]


COMMANDS = {
    "a pointer": ("a.parquet", LFS_POINTER, "git lfs pull"),
    "a web page": ("a.zip", WEB_PAGE, "web page"),
    "HDF5": ("a.h5", b"\x89HDF", "HDF5"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_says_it_in_one_line_and_leaves_nothing(case, tmp_path, capsys):
    name, data, words = COMMANDS[case]
    path = write(tmp_path / name, data)
    before = everything_below(tmp_path)
    refused(train_command(path, tmp_path / "run"), capsys, name, words)
    assert everything_below(tmp_path) == before
