"""What is made once and kept: whole or not at all, and by one process at a time."""

import multiprocessing
import time

import pytest

from ddpm.data.cache import cached
from ddpm.data.packed import Packed, write_packed
from ddpm.errors import DdpmError


def test_nothing_half_made_is_left_or_used(tmp_path, cache):
    source = tmp_path / "source"
    source.write_text("data")

    def fail(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(DdpmError, match="No space left on device"):
        cached("kind", [source], fail)
    assert not list(cache.glob("*kind*partial"))
    made = cached("kind", [source], lambda path: path.write_bytes(b"whole"))
    assert made.read_bytes() == b"whole"


def _make(source, log):
    """In a process of its own: ask for the file, and note in `log` if it had to be made here."""

    def build(path):
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        path.write_bytes(b"whole")

    return cached("kind", [source], build).read_bytes()


def test_of_processes_that_want_a_file_at_once_one_makes_it_and_the_others_wait(tmp_path, cache):
    source, log = tmp_path / "source", tmp_path / "log"
    source.write_text("data")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.starmap(_make, [(source, log)] * 3, chunksize=1)
    assert found == [b"whole"] * 3
    assert log.read_text() == "made\n"


@pytest.mark.parametrize("items", [[], [b""], [b"a", b"", b"b" * 1000, b"\0\0"]])
def test_packed_strings_come_out_as_they_went_in(tmp_path, items):
    write_packed(tmp_path / "packed", iter(items))
    packed = Packed(tmp_path / "packed")
    assert len(packed) == len(items)
    assert [packed[i] for i in range(len(items))] == items
