"""Which checkpoints `ddpm compress` has a run keep, and what it says of that."""

import contextlib
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.cli.compress import back
from ddpm.cli.given import Given
from ddpm.loading import load, load_with_file
from ddpm.model import Ddpm
from ddpm.pretrained import pretrained
from ddpm.runs.folder import RunFolder
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, measured_model, tiny_model
from mistakes import refused

STEP = "step-00000003.safetensors"
COMPRESS = ["compress", "run", "one.png", "-o", "x.ddpm", "--steps", "2"]
MEASURE = ["measure", "run", *BRIEFLY, "--images", "4", "--timesteps", "2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a measured model."""
    path = tmp_path_factory.mktemp("pins") / STEP
    measured_model().save(path)
    return path


@pytest.fixture
def place(tmp_path, checkpoint, monkeypatch):
    """The current folder, with a run of it and a picture that it can take."""
    monkeypatch.chdir(tmp_path)
    checkpoint_path("run", 3).parent.mkdir(parents=True)
    shutil.copy(checkpoint, checkpoint_path("run", 3))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("one.png")
    with one_thread():
        yield tmp_path


def pinned(run="run"):
    """Names of what a run keeps."""
    return [path.name for path in RunFolder(Path(run)).pinned()]


def bar(then):
    """In the place of a bar: do something as soon as the work goes on."""
    return lambda *_: contextlib.nullcontext(lambda *_: then())


def test_a_measurement_leaves_alone_what_was_pinned_meanwhile(place, monkeypatch, capsys):
    run, file = RunFolder(Path("run")), checkpoint_path("run", 3)
    before = file.read_bytes()
    monkeypatch.setattr("ddpm.cli.measure.progress_bar", bar(lambda: run.pin(file)))
    assert main([*MEASURE, "--json"]) == 0
    said = capsys.readouterr()
    beside = file.with_name(f"measured-{STEP}")
    assert f"{file} may be needed by an archive by now and is not changed" in said.err
    found = json.loads(said.out)
    assert found["made"] == [str(beside)]
    assert str(beside) in found["next"][0]
    assert file.read_bytes() == before
    assert load(beside).denoising_error.images == 4
    refused(MEASURE, capsys, "is kept for archives", run.pins, "--out")


def interrupt():
    """Somebody loses patience."""
    raise KeyboardInterrupt


def test_one_that_is_stopped_takes_no_pin_from_another(place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ddpm.cli.compress.progress_bar", bar(interrupt))
        assert main(COMPRESS) == 130
    assert pinned() == [STEP]  # the other one may have begun since, and has seen it there


def test_a_checkpoint_is_pinned_before_images_are_read(place, monkeypatch):
    monkeypatch.setattr("ddpm.cli.compress.read_images", lambda *_: interrupt())
    assert main(COMPRESS) == 130
    assert pinned() == [STEP]


def test_a_checkpoint_that_was_removed_meanwhile_is_said_to_be_gone(place, monkeypatch, capsys):
    def late(name):
        model, file = load_with_file(name)
        file.unlink()
        return model, file

    monkeypatch.setattr("ddpm.cli.compress.load_with_file", late)
    refused(COMPRESS, capsys, STEP, "was removed meanwhile")
    assert not Path("x.ddpm").exists()


def test_no_archive_is_written_for_a_checkpoint_that_is_gone_by_then(place, monkeypatch, capsys):
    really = Ddpm.compress

    def late(*args, **options):
        checkpoint_path("run", 3).unlink()
        return really(*args, **options)

    monkeypatch.setattr(Ddpm, "compress", late)
    refused(COMPRESS, capsys, STEP, "was removed meanwhile")
    assert not Path("x.ddpm").exists()


def test_nothing_is_pinned_where_there_is_no_image(place, capsys):
    refused(["compress", "run", "two.png", *COMPRESS[3:]], capsys, "two.png does not exist")
    assert pinned() == []


def test_nothing_is_pinned_for_a_model_that_cannot_compress(place, capsys):
    tiny_model().save(checkpoint_path("run", 9))
    refused(COMPRESS, capsys, "ddpm measure")
    assert pinned() == []


@pytest.mark.parametrize("link", ["best.safetensors", f"here/{STEP}"])
def test_a_checkpoint_behind_a_link_is_pinned(place, link, capsys):
    there = checkpoint_path("run", 3).absolute()
    if link.startswith("here"):
        Path("here").symlink_to(there.parent)
    else:
        Path(link).symlink_to(there)
    assert main(["compress", link, *COMPRESS[2:]]) == 0
    assert f"{there} is needed, which the run keeps from now on" in capsys.readouterr().out
    assert pinned() == [STEP]
    refused(["measure", link, *BRIEFLY], capsys, "--out")


def test_a_second_archive_is_told_that_the_run_keeps_it_already(place, capsys):
    for words in ("from now on", "already"):
        assert main(COMPRESS) == 0
        sentence = f"to decode it, {checkpoint_path('run', 3)} is needed, which the run keeps"
        assert f"{sentence} {words}" in capsys.readouterr().out
    assert pinned() == [STEP]


def test_where_the_list_is_unreadable_it_says_what_to_keep(place, capsys):
    Path("run/pinned.txt").write_bytes("é".encode("utf-16"))
    assert main(COMPRESS) == 0
    assert f"keep {checkpoint_path('run', 3)}, which the run could" in capsys.readouterr().out
    refused(MEASURE, capsys, "UTF-8")


# -- the command that decodes it -------------------------------------------------------------------


@pytest.mark.parametrize("run", ["run", "runs/a", "runs/group/a", "a folder/run"])
def test_the_command_that_is_named_decodes_it(place, run, capsys):
    if run != "run":
        shutil.copytree("run", run)
        shutil.rmtree("run")
    assert main(["compress", run, *COMPRESS[2:], "--json"]) == 0
    command = json.loads(capsys.readouterr().out)["next"][0]
    words = shlex.split(command)
    assert (run in words) == (run != "runs/a")
    assert main(words[1:]) == 0
    assert (place / "FOLDER").exists()


def test_the_command_has_the_class_and_no_model_that_is_found(place):
    (name, file) = next(iter(pretrained().items()))
    assert back(name, file, Path("x"), Given()) == "ddpm decompress x -o FOLDER"
    words = "ddpm decompress run x --class 3 --guidance 1 -o FOLDER"
    assert back("run", checkpoint_path("run", 3), Path("x"), Given("3")) == words
