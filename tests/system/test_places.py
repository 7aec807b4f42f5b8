"""Homes that are not there, homes of nobody, and names that are not UTF-8."""

import errno
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from data.sets import pictures as encoded
from data.sets import write_parquet
from ddpm.cli import main
from ddpm.data.cache import cache_folder, cached
from ddpm.data.parquet import parquet_images
from full_range import one_thread
from helpers import BRIEFLY
from mistakes import everything_below, refused
from runs.small_run import TRAIN, newest, pictures, write
from streams import standard_streams

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


# -- nobody's home -------------------------------------------------------------------------------

NOBODY = "~no-such-user/x"
ASKED = {
    "sample": ["sample", NOBODY],
    "sample --out": ["sample", "run", "-n", "1", "--out", f"{NOBODY}.png"],
    "sample --out a folder": ["sample", "run", "-n", "1", "--out", NOBODY],
    "info": ["info", NOBODY],
    "watch": ["watch", NOBODY],
    "plot": ["plot", NOBODY],
    "compress": ["compress", "run", NOBODY, "-o", "y"],
    "compress -o": ["compress", "run", "one.png", "-o", NOBODY],
    "decompress": ["decompress", "run", NOBODY, "-o", "y"],
    "decompress RUN": ["decompress", NOBODY, "x.ddpm", "-o", "y"],
    "measure": ["measure", NOBODY],
    "measure --out": ["measure", "run", "--out", NOBODY],
    "measure --data": ["measure", "run", "--data", NOBODY],
    "evaluate --data": ["evaluate", "run", "--bpd", "--data", NOBODY],
    "evaluate --out": ["evaluate", "run", "--bpd", "--images", "1", "--out", NOBODY],
    "train --data": [*TRAIN, "--data", NOBODY],
    "train --out": [*TRAIN, "--out", NOBODY],
    "train from it": [*TRAIN, "--training.start-from", NOBODY],
    "train --resume": ["train", "--resume", NOBODY],
    "demo --out": ["demo", "--out", NOBODY],
}


@pytest.mark.parametrize("name", ASKED)
def test_the_home_of_nobody_is_a_sentence(place, capsys, name):
    before = everything_below(place)
    refused(ASKED[name], capsys, "~no-such-user")
    assert everything_below(place) == before


# -- no home -------------------------------------------------------------------------------------


def no_home(monkeypatch, place):
    """A user id without a name, and no HOME: a container's."""
    monkeypatch.delenv("HOME", raising=False)

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def gone_home(monkeypatch, place):
    """That of somebody who has left."""
    monkeypatch.setenv("HOME", str(place / "gone"))


def impossible_home(monkeypatch, place):
    (place / "file").touch()
    monkeypatch.setenv("HOME", str(place / "file" / "nonexistent"))


def locked_home(monkeypatch, place):
    """One that looks writable and is not, as for root on a network."""
    (place / "home").mkdir()

    def refuse(self, mode=0o777, parents=False, exist_ok=False):
        if self.is_relative_to(place / "home"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, mode, parents, exist_ok)

    real = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setenv("HOME", str(place / "home"))


HOMES = [no_home, gone_home, impossible_home, locked_home]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for what is needed for a while."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "tmp"


@pytest.mark.parametrize("home", HOMES)
def test_what_is_kept_for_later_goes_to_the_temporary_folder(place, monkeypatch, temporary, home):
    home(monkeypatch, place)
    source = place / "source"
    source.write_text("data")
    made = cached("kind", [source], lambda path: path.write_bytes(b"whole"))
    assert made.read_bytes() == b"whole"
    assert made.is_relative_to(temporary)
    assert not (place / "gone").exists()
    again = cached("kind", [source], lambda path: pytest.fail("it was made already"))
    assert again == made
    if hasattr(os, "geteuid"):  # nobody else may write what will be believed
        assert made.parent.stat().st_uid == os.geteuid()
        assert not made.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@pytest.mark.parametrize("home", HOMES)
def test_a_set_that_is_unpacked_first_is_read_without_a_home(place, monkeypatch, temporary, home):
    values = encoded(4)
    folder = write_parquet(place / "set", values)
    home(monkeypatch, place)
    images = parquet_images(sorted(folder.iterdir()), 8, 3, "set", memory_limit=0)
    assert len(images) == 4
    assert images.read(3).shape == (3, 8, 8)


@pytest.mark.parametrize("home", HOMES)
def test_commands_need_no_home(place, monkeypatch, temporary, home):
    write(place / "pets", pictures(8))
    home(monkeypatch, place)
    assert main([*TRAIN, "--data", "pets", "--out", "new"]) == 0
    assert main(["sample", "new", "-n", "1", "--steps", "2", "--out", "a.png"]) == 0


def test_a_path_at_home_is_refused_where_there_is_none(place, monkeypatch, capsys):
    no_home(monkeypatch, place)
    for arguments in (["sample", "~/run"], ["sample", "run", "-n", "1", "--out", "~/x.png"]):
        refused(arguments, capsys, "~")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give")
def test_what_somebody_else_left_in_the_temporary_folder_is_not_believed(
    place, monkeypatch, temporary
):
    no_home(monkeypatch, place)
    source = place / "source"
    source.write_text("data")
    made = cached("kind", [source], lambda path: path.write_bytes(b"whole"))
    made.write_bytes(b"poison")
    theirs = place / "theirs"
    shutil.copytree(temporary, theirs)
    for path in theirs.rglob("*"):
        os.chown(path, 12345, 12345)
    monkeypatch.setattr(tempfile, "tempdir", str(theirs))
    assert cached("kind", [source], lambda path: path.write_bytes(b"whole")) != made
    found = cached("kind", [source], lambda path: path.write_bytes(b"whole"))
    assert found.read_bytes() == b"whole"


def test_a_cache_that_was_named_is_used(place, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "mine"))
    assert cache_folder() == place / "mine" / "ddpm"


# -- names that are not UTF-8 --------------------------------------------------------------------

STRANGE = os.fsdecode(b"caf\xe9")


@pytest.fixture
def strange(place):
    """The same working folder, where names may be any bytes."""
    try:
        (place / STRANGE).mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system knows UTF-8 names only")
    (place / STRANGE).rmdir()
    return place


def named(path, name):
    """Give a file or folder a strange name; that name."""
    os.rename(path, name)
    return name


NAMED = {
    "a run": lambda p: ["sample", named("run", STRANGE), "-n", "1", "--out", "a.png"],
    "a run asked for": lambda p: ["info", named("run", STRANGE)],
    "a grid": lambda p: ["sample", "run", "-n", "1", "--out", f"{STRANGE}.png"],
    "a folder of samples": lambda p: ["sample", "run", "-n", "1", "--out", STRANGE],
    "an image": lambda p: ["compress", "run", named("one.png", f"{STRANGE}.png"), "-o", "y"],
    "an archive": lambda p: ["compress", "run", "one.png", "-o", STRANGE],
    "figures": lambda p: ["evaluate", "run", "--bpd", "--images", "2", "--out", STRANGE],
    "a measured model": lambda p: ["measure", "run", *BRIEFLY, "--images", "2", "--out", STRANGE],
    "images": lambda p: [*TRAIN, "--data", named(write(p / "p", pictures(4)), STRANGE)],
    "one of the images": lambda p: [
        *TRAIN,
        "--data",
        named(write(p / "p", pictures(4)) / "00.png", p / "p" / f"{STRANGE}.png").parent,
    ],
    "a new run": lambda p: [*TRAIN, "--data", write(p / "p", pictures(4)), "--out", STRANGE],
}


# What safetensors and TensorBoard open themselves, and they know UTF-8 names only.
TOLD = {"a run", "a run asked for", "a measured model", "a new run"}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_that_is_not_utf8_is_a_name_or_told(strange, monkeypatch, name):
    arguments = [str(x) for x in NAMED[name](strange)]
    out, errors = standard_streams(monkeypatch, False, False)
    code = main(arguments)
    assert "Traceback" not in out.text + errors.text
    if code == 2 and name in TOLD:
        assert errors.lines[-1].startswith("ddpm: ")
        assert "UTF-8" in errors.lines[-1]
    else:
        assert code == 0


def test_a_run_on_images_of_such_a_name_goes_on(strange, monkeypatch):
    named(write(strange / "p", pictures(4)), STRANGE)
    standard_streams(monkeypatch, False, False)
    command = [*TRAIN, "--data", STRANGE, "--out", "new"]
    assert main(command) == 0
    assert main([*command, "--training.steps", "6", "--resume"]) == 0
    assert newest("new") == 6


@pytest.mark.parametrize("command", ["sample", "info", "watch", "compress", "train"])
def test_a_mistake_with_such_a_name_is_a_sentence(strange, monkeypatch, command):
    more = {
        "compress": ["compress", "run", STRANGE, "-o", "y"],
        "train": [*TRAIN, "--data", STRANGE],
    }
    _, errors = standard_streams(monkeypatch, False, False)
    assert main(more.get(command, [command, STRANGE])) == 2
    assert errors.lines[-1].startswith("ddpm: ")
    assert "caf" in errors.lines[-1]
