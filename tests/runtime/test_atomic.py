"""Files that are written whole: names of any length, and places that are taken."""

import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from ddpm.errors import DdpmError
from ddpm.runs.folder import RunFolder
from ddpm.runtime.atomic import atomically, check_writable, free_bytes, make_folder, write_text

LONG_NAMES = {
    "letters": "a" * 251 + ".png",
    "dots": "a." * 125 + ".png",
    "two-bytes": "é" * 125 + "a.png",
    "four-bytes": "🙂" * 62 + "abc.png",
    "no-unicode": os.fsdecode(b"\xff" * 251 + b".png"),
}


@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_name_as_long_as_the_file_system_takes(tmp_path, name):
    path = tmp_path / LONG_NAMES[name]
    write_text(path, "x")
    assert path.read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_of_one_beginning_have_their_own_partial_files(tmp_path):
    seen = []
    for end in "ab":
        atomically(tmp_path / f"{'x' * 250}{end}", lambda p: seen.append(p) or p.write_text("y"))
    assert len(set(seen)) == 2


def test_half_a_file_of_a_long_name_is_cleared(tmp_path, monkeypatch):
    dead = subprocess.Popen(["true"])
    dead.wait()
    with monkeypatch.context() as theirs:
        theirs.setattr(os, "getpid", lambda: dead.pid)
        theirs.setattr("pathlib.Path.unlink", lambda path: None)  # it was killed before
        with pytest.raises(DdpmError, match="No space"):
            atomically(tmp_path / LONG_NAMES["dots"], full)
    (partial,) = tmp_path.iterdir()
    assert partial.name.endswith(f".{dead.pid}.partial")
    RunFolder(tmp_path).clear_partial_files()
    assert list(tmp_path.iterdir()) == []


def full(path):
    """Fill a file on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(params=["links", "no links"])
def place(request, tmp_path, monkeypatch):
    """A folder, with and without hard links."""
    if request.param == "no links":

        def link(*paths):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    return tmp_path


TAKEN = {
    "file": lambda path: path.write_text("precious"),
    "folder": lambda path: path.mkdir(),
    "link to nowhere": lambda path: path.symlink_to("gone"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_place_that_is_taken_while_a_file_is_made_is_not_taken_away(place, what):
    path = place / "a.png"

    def write(partial):
        partial.write_text("new")
        TAKEN[what](path)

    with pytest.raises(DdpmError, match=r"a\.png is there already"):
        atomically(path, write, replace=False)
    assert list(place.iterdir()) == [path]
    assert what != "file" or path.read_text() == "precious"


def test_a_drive_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    """As on Windows, where also the root of a path may be missing."""

    def missing(path, *_, **__):
        raise FileNotFoundError(errno.ENOENT, "no such drive", str(path))

    monkeypatch.setattr(Path, "lstat", missing)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    monkeypatch.setattr(shutil, "disk_usage", missing)
    for try_it in (check_writable, free_bytes):
        with pytest.raises(DdpmError, match=r"cannot write .*new.*no such drive"):
            try_it(tmp_path / "new")


def test_a_free_place_is_taken(place):
    atomically(place / "a.png", lambda partial: partial.write_text("new"), replace=False)
    assert [(p.name, p.read_text()) for p in place.iterdir()] == [("a.png", "new")]
    assert (place / "a.png").stat().st_nlink == 1


def test_trying_a_folder_leaves_all_files_as_they_are(tmp_path):
    (tmp_path / ".writable").write_text("precious")
    threads = [threading.Thread(target=check_writable, args=[tmp_path]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(".writable", "precious")]
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    make_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with pytest.raises(DdpmError, match=r"cannot write .*\.writable"):
        check_writable(tmp_path / ".writable" / "below")
    with pytest.raises(DdpmError, match=r"cannot write .*\.writable"):
        make_folder(tmp_path / ".writable" / "below")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    with pytest.raises(DdpmError, match=r"cannot write .*link"):
        check_writable(tmp_path / "link")
    with pytest.raises(DdpmError, match=r"cannot write .*too long"):
        check_writable(tmp_path / ("n" * 300) / "below")
