"""Files are written on Windows, and archives are read from pipes.

Windows is simulated: the module `fcntl` is missing, a folder cannot be opened, and a file that was
opened for reading cannot be flushed to disk. `os.name` stays what it is, as pathlib looks at it.
"""

import errno
import io
import os
import sys
import threading
from types import SimpleNamespace

import pytest
from PIL import Image

from data.sets import pictures as encoded
from data.sets import write_parquet
from ddpm.cli import main
from ddpm.data.cache import cached
from ddpm.data.parquet import parquet_images
from ddpm.loading import load
from ddpm.runs.checkpoint import load_checkpoint
from ddpm.runtime.atomic import atomically, check_writable, make_folder, write_text
from full_range import one_thread
from helpers import checkpoint_path, tiny_model
from mistakes import everything_below, refused
from runs.small_run import TRAIN, newest, pictures, write


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


@pytest.fixture
def windows(place, monkeypatch):
    """The same working folder, on Windows as far as files go."""
    really_open, really_sync = os.open, os.fsync

    def open_file(path, *options, **more):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return really_open(path, *options, **more)

    def sync(file):
        number = file if isinstance(file, int) else file.fileno()
        os.write(number, b"")  # fails for a file that was opened for reading
        really_sync(number)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "fsync", sync)
    return place


# -- Windows -------------------------------------------------------------------------------------

FEW = ["--images", "2"]
MADE = {  # what a command makes, and the command
    "grid.png": ["sample", "run", "-n", "2", "--out", "grid.png"],
    "array.npz": ["sample", "run", "-n", "2", "--out", "array.npz"],
    "samples/000001.png": ["sample", "run", "-n", "2", "--out", "samples"],
    "y.ddpm": ["compress", "run", "one.png", "-o", "y.ddpm", "--steps", "2"],
    "back.png": ["decompress", "run", "x.ddpm", "-o", "back.png"],
    "back/000000.png": ["decompress", "run", "x.ddpm", "-o", "back"],
    "m.safetensors": ["measure", "run", *FEW, "--out", "m.safetensors"],
    "figures/bpd-test*.png": ["evaluate", "run", "--bpd", *FEW, "--out", "figures"],
}


@pytest.mark.parametrize("name", MADE)
def test_commands_write_their_files(windows, name):
    assert main(MADE[name]) == 0
    found = list(windows.glob(name)) or list(windows.glob(f"{name[:-4]}*{name[-4:]}"))
    assert found
    assert not list(windows.rglob("*.partial"))


def test_a_run_is_trained_and_goes_on(windows):
    write(windows / "pets", pictures(8))
    command = [*TRAIN, "--data", "pets", "--out", "new"]
    assert main(command) == 0
    assert main([*command, "--training.steps", "6", "--resume"]) == 0
    assert newest("new") == 6
    assert load_checkpoint(checkpoint_path("new", 6), training=True)


def test_a_model_is_saved_and_loaded(windows):
    tiny_model().save(windows / "model.safetensors")
    assert load(windows / "model.safetensors").num_parameters > 0


def test_a_model_is_measured_in_its_place(windows):
    assert main(["measure", "run", *FEW]) == 0


def test_a_text_is_written(windows):
    write_text(windows / "new" / "a.txt", "±")
    assert (windows / "new" / "a.txt").read_text(encoding="utf-8") == "±"


def test_a_file_is_replaced(windows):
    for text in ("first", "second"):
        atomically(windows / "a", lambda partial, text=text: partial.write_text(text))
    assert (windows / "a").read_text() == "second"


def test_a_folder_is_seen_to_be_writable(windows):
    check_writable(windows / "new")
    make_folder(windows / "new")
    assert list((windows / "new").iterdir()) == []


def test_what_is_made_once_is_kept(windows, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(windows / "cache"))
    source = windows / "source"
    source.write_text("data")
    made = cached("kind", [source], lambda path: path.write_bytes(b"whole"))
    assert made.read_bytes() == b"whole"
    assert cached("kind", [source], lambda path: pytest.fail("it was made already")) == made


def test_a_large_set_of_rows_is_read(windows, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(windows / "cache"))
    folder = write_parquet(windows / "set", encoded(4))
    images = parquet_images(sorted(folder.iterdir()), 8, 3, "set", memory_limit=0)
    assert images.read(3).shape == (3, 8, 8)


def test_a_mistake_leaves_nothing_there(windows, capsys):
    before = everything_below(windows)
    refused(["compress", "run", "nowhere.png", "-o", "y.ddpm"], capsys, "nowhere.png")
    assert everything_below(windows) == before


# -- pipes ---------------------------------------------------------------------------------------


def standard_input(data, place, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    return "-"


def named_pipe(data, place, monkeypatch):
    os.mkfifo(place / "pipe")
    threading.Thread(target=(place / "pipe").write_bytes, args=[data], daemon=True).start()
    return "pipe"


def descriptor(data, place, monkeypatch):
    """What a shell makes of <(command)."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return f"/dev/fd/{reading}"


PIPES = [standard_input, named_pipe, descriptor]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("pipe", PIPES)
def test_an_archive_comes_through_a_pipe(place, monkeypatch, pipe):
    path = pipe((place / "x.ddpm").read_bytes(), place, monkeypatch)
    assert main(["decompress", "run", path, "-o", "back.png"]) == 0
    with Image.open("back.png") as now, Image.open("one.png") as was:
        assert now.tobytes() == was.tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("pipe", PIPES)
def test_a_pipe_that_breaks_off_gives_what_came(place, monkeypatch, capsys, pipe):
    path = pipe((place / "x.ddpm").read_bytes()[:-3], place, monkeypatch)
    assert main(["decompress", "run", path, "-o", "back.png"]) == 0
    assert "not exact" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"\xdd", b"hello", bytes(1000)])
def test_what_is_no_archive_is_refused_from_a_pipe_too(place, monkeypatch, capsys, data):
    path = standard_input(data, place, monkeypatch)
    refused(["decompress", "run", path, "-o", "back.png"], capsys)
    assert not (place / "back.png").exists()
