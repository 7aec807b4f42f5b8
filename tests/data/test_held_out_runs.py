"""What a training run says of the images that it holds out, and of copies among them."""

import json
import logging

import pytest
from PIL import Image

from data.form_makers import SIZE, noise, picture, train_command, write, write_pictures
from ddpm.cli import main
from ddpm.data import open_data
from mistakes import everything_below, refused


def what_a_run_knows(run, capsys):
    """The part `images` of config.json, and what `ddpm info` prints."""
    capsys.readouterr()
    assert main(["info", str(run)]) == 0
    return json.loads((run / "config.json").read_text())["images"], capsys.readouterr().out


def row(text, word):
    """The rows of a table that have a word."""
    return "\n".join(line for line in text.splitlines() if word in line)


@pytest.mark.slow
def test_a_run_says_how_many_images_it_took_and_held_out_now_and_later(tmp_path, capsys):
    folder = noise(tmp_path / "own", 23)
    noise(folder / "Val", 11, seed=1)
    assert main(train_command(folder, tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "23 images" in said
    assert "11" in row(said, "held out")
    images, info = what_a_run_knows(tmp_path / "run", capsys)
    assert {"count": 23, "held_out": 11, "shape": [3, 8, 8]}.items() <= images.items()
    assert images["name"] == "own"
    assert images["sample"]
    assert "23" in row(info, "images.count")
    assert "11" in row(info, "images.held_out")


@pytest.mark.slow
def test_what_an_option_holds_out_is_said_and_measured_later(tmp_path, capsys):
    folder, run = noise(tmp_path / "own"), tmp_path / "run"
    held_out = len(open_data(folder, "test", hold_out=0.25, **SIZE))
    assert main(train_command(folder, run, "--data.hold-out", "0.25")) == 0
    said = capsys.readouterr().out
    assert f"{60 - held_out} images" in said
    assert str(held_out) in row(said, "held out")
    images, info = what_a_run_knows(run, capsys)
    assert (images["count"], images["held_out"]) == (60 - held_out, held_out)
    assert str(held_out) in row(info, "images.held_out")
    assert main(["evaluate", str(run), "--bpd", "--out", str(tmp_path / "e")]) == 0
    assert f"{held_out} images" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_without_held_out_images_offers_the_option(tmp_path, capsys):
    assert main(train_command(noise(tmp_path / "own", 5), tmp_path / "run")) == 0
    said = capsys.readouterr()
    assert "--data.hold-out" in said.out + said.err
    images, _ = what_a_run_knows(tmp_path / "run", capsys)
    assert (images["count"], images["held_out"]) == (5, 0)


def copied_files(folder):
    for path in sorted(folder.glob("*.png"))[:3]:
        write(folder / "test" / f"c-{path.name}", path.read_bytes())


def other_kinds(folder):
    for i, path in enumerate(sorted(folder.glob("*.png"))[:3]):
        with Image.open(path) as image:
            image.save(folder / "test" / f"{i}.bmp")


def flat_of_other_sizes(folder):
    for value in (1, 2, 3):  # of one colour, they are equal at 8x8 pixels
        picture(value, (8, 8)).save(folder / f"f{value}.png")
        picture(value, (20, 30), "RGB").save(folder / "test" / f"f{value}.png")


COPIES = {
    "copied files": copied_files,
    "of other kinds": other_kinds,
    "of other sizes, equal when loaded": flat_of_other_sizes,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", COPIES)
def test_copies_of_training_images_among_the_held_out_are_counted(case, tmp_path, caplog):
    folder = noise(tmp_path / "own", 12)
    noise(folder / "test", 7, seed=1)
    COPIES[case](folder)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        assert main(train_command(folder, tmp_path / "run")) == 0
    assert "3 of the 10 held-out images" in caplog.text


@pytest.mark.slow
def test_there_is_no_word_of_copies_where_there_are_none(tmp_path, caplog):
    folder = noise(tmp_path / "own", 12)
    noise(folder / "test", 7, seed=1)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        assert main(train_command(folder, tmp_path / "run")) == 0
    assert "also trained on" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--check-duplicates"]], ids=["not asked", "asked"])
def test_in_a_set_too_large_for_memory_copies_are_counted_when_asked(
    options, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("ddpm.data.streamed.fits_in_memory", lambda *_: False)
    folder = noise(tmp_path / "own", 12)
    noise(folder / "test", 7, seed=1)
    copied_files(folder)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        assert main(train_command(folder, tmp_path / "run", *options)) == 0
    assert ("3 of the 10 held-out images" in caplog.text) == bool(options)


REFUSED = {
    "all held out": (lambda p: write_pictures(p / "test", ["a.png"]), [], ["held out", "test"]),
    "held out twice": (
        lambda p: write_pictures(p, ["a.png", "test/b.png"]),
        ["--data.hold-out", "0.1"],
        ["--data.hold-out"],
    ),
    "all of it": (noise, ["--data.hold-out", "1"], ["hold", "[0, 1)"]),
    "less than nothing": (noise, ["--data.hold-out", "-0.5"], ["hold", "[0, 1)"]),
    "no number": (noise, ["--data.hold-out", "some"], ["hold-out"]),
    "too little": (noise, ["--data.hold-out", "1e-9"], ["--data.hold-out"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_a_sentence_and_leaves_nothing(case, tmp_path, capsys):
    make, options, words = REFUSED[case]
    make(tmp_path / "own")
    before = everything_below(tmp_path)
    refused(train_command(tmp_path / "own", tmp_path / "run", *options), capsys, *words)
    assert everything_below(tmp_path) == before
