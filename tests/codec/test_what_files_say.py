"""Files that anybody may have made, cut, or added to: what `info` and `decompress` say of them."""

import io
import json
import sys
import tracemalloc
import zlib

import pytest
import torch
from PIL import Image

import ddpm.codec.names as names
import ddpm.codec.parts as parts
from ddpm.cli import main
from ddpm.codec.header import Header, Part, parse
from ddpm.errors import DdpmError
from helpers import measured_model, tiny_images
from mistakes import refused


def forged(*named, payload=10):
    """A file of one part, with names that nobody checked."""
    header = Header(0x1234567, len(named), None, named, None, False, (Part(payload, 0),))
    return header.pack() + bytes(payload)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with m.safetensors and x.ddpm: three pictures, each a part of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "PART", 8)
    model = measured_model()
    model.save("m.safetensors")
    found = model.compress(list(tiny_images(3)[torch.arange(3)]), names=["a", "b", "c"])
    (tmp_path / "x.ddpm").write_bytes(found)
    return tmp_path


@pytest.mark.parametrize("name", ["\x1b[31mred\x07.png", "a\r\nb.png", "\x9b1m", "a\u202egnp.exe"])
def test_a_name_does_not_steer_the_terminal_and_is_not_written(tmp_path, capsys, name):
    assert names.why_not(name)
    (tmp_path / "x.ddpm").write_bytes(forged(name, "good.png"))
    assert main(["info", str(tmp_path / "x.ddpm")]) == 0
    shown = capsys.readouterr().out
    assert "good.png" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


@pytest.mark.parametrize("name", ["con .png", "a/nul  .x.png", "COM1 "])
def test_a_device_with_spaces_is_a_device(name):
    assert names.why_not(name)


def test_more_names_than_can_be_read_are_not_written(monkeypatch):
    monkeypatch.setattr(names, "MOST_BYTES", 100)
    names.check_names(["x" * 99])
    with pytest.raises(DdpmError, match=r"101 bytes, and a file holds 100; .*--no-names"):
        names.check_names(["x" * 49, "y" * 50])


def test_a_forged_count_of_names_takes_no_memory():
    packed = zlib.compress(bytes(10_000_000), 9)
    tracemalloc.start()
    with pytest.raises(DdpmError, match="damaged"):
        names.unpack_names(packed, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000  # and not one string for each of them


def test_info_counts_the_header_of_a_file_that_is_cut_and_of_one_that_goes_on(place, capsys):
    whole = (place / "x.ddpm").read_bytes()
    header = len(whole) - parse(whole).header.length
    for data, words in (
        (whole, ["complete", "yes"]),
        (whole[:-7], ["no, 7 bytes are missing"]),
        (whole + bytes(400), ["400 bytes that are no part of it"]),
    ):
        (place / "y.ddpm").write_bytes(data)
        assert main(["info", "y.ddpm"]) == 0
        shown = capsys.readouterr().out
        assert all(
            word in shown for word in [f"{len(data):,}, {header} of them the header", *words]
        )


def test_the_document_has_every_name_and_every_step(tmp_path, capsys):
    (tmp_path / "x.ddpm").write_bytes(forged(*map(str, range(50))))
    assert main(["info", str(tmp_path / "x.ddpm")]) == 0
    assert "and 30 more (--json tells all)" in " ".join(capsys.readouterr().out.split())
    assert main(["info", str(tmp_path / "x.ddpm"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["names"] == [str(i) for i in range(50)]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--only", "9" * 5000], "there is no image '999"),
        (["--only", "3"], "which holds 3"),
        (["--only"], "--only needs names or numbers"),
        (["--fraction", "0.0001"], "cut off inside its header"),
    ],
)
def test_what_is_asked_of_a_file_is_there_or_it_is_told(place, capsys, more, words):
    refused(["decompress", "m.safetensors", "x.ddpm", "-o", "out", *more], capsys, words)
    assert not (place / "out").exists()


def test_an_image_that_has_not_arrived_is_told_and_no_success(place, capsys):
    length = (
        len((place / "x.ddpm").read_bytes())
        - parse((place / "x.ddpm").read_bytes()).header.parts[2].length
    )
    command = ["decompress", "m.safetensors", "x.ddpm", "--bytes", length, "-o", "out"]
    refused([*command, "--only", "c"], capsys, "none of these images has arrived")
    assert not (place / "out").exists()
    assert main([*map(str, command), "--only", "b"]) == 0
    with Image.open(place / "out" / "b.png") as image:
        assert image.size == (8, 8)


def test_nothing_can_come_in_through_a_closed_input(place, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    refused(["decompress", "m.safetensors", "-", "-o", "out"], capsys, "standard input is closed")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    refused(["decompress", "m.safetensors", "-", "-o", "out"], capsys, "not a file of")


class Interrupting:
    """Ctrl-C while a module is imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "ddpm.cli.outcome":
            raise KeyboardInterrupt


def test_an_interrupt_while_a_command_is_imported_is_one_line(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ddpm.cli.outcome")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "ddpm: interrupted\n"
