"""A run knows its images by what they show: by number, shape and pixels, not by the folder's name.

So it goes on where they lie now, and neither goes on nor is measured on what took their place.
"""

import os
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.data.folder import image_folder
from ddpm.errors import DdpmError
from ddpm.training import train
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, tiny_config, tiny_images
from mistakes import everything_below, refused
from runs.small_run import BEGIN, RESUME, newest, pictures, replace, write

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


# -- going on ------------------------------------------------------------------------------------


def moved(place, to):
    (place / to).parent.mkdir(parents=True, exist_ok=True)
    (place / "pets").rename(place / to)
    return ["--data", to]


def linked(place):
    moved(place, "store/1")
    (place / "dogs").symlink_to("store/1")
    return ["--data", "dogs"]


def as_bitmaps(place):
    write(place / "bitmaps", pictures(), "bmp")
    return ["--data", "bitmaps"]


def as_zip(place):
    with zipfile.ZipFile(place / "pets.zip", "w") as file:
        for path in sorted((place / "pets").iterdir()):
            file.write(path, f"pets/{path.name}")
    return ["--data", "pets.zip"]


def as_tar(place):
    with tarfile.open(place / "pets.tar.gz", "w:gz") as file:
        file.add(place / "pets", "pets")
    return ["--data", "pets.tar.gz"]


def as_array(place):
    np.savez(place / "pets.npz", images=pictures())
    return ["--data", "pets.npz"]


def with_company(place):
    (place / "pets" / ".DS_Store").write_bytes(b"\0")
    (place / "pets" / "notes.txt").write_text("all mine")
    (place / "pets" / ".thumbnails").mkdir()
    shutil.copy(place / "pets" / "00.png", place / "pets" / ".thumbnails")
    return []


def touched(place):
    for path in (place / "pets").iterdir():
        os.utime(path, (1, 1))
    return []


SAME = {
    "renamed": lambda p: moved(p, "dogs"),
    "moved": lambda p: moved(p, "far/away/pets"),
    "its whole path": lambda p: ["--data", str(p / "pets")],
    "a link to it": linked,
    "other files of the same pixels": as_bitmaps,
    "a zip of it": as_zip,
    "a tar.gz of it": as_tar,
    "an array of it": as_array,
    "notes and thumbnails beside": with_company,
    "other dates": touched,
}


QUICK = ["renamed", "a link to it", "other files of the same pixels", "a zip of it"]
OTHER = [pytest.param(name, marks=pytest.mark.slow) for name in SAME if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHER])
def test_the_same_images_are_known_wherever_they_lie(halfway, name):
    options = SAME[name](halfway)
    assert main([*BEGIN, "--resume", *options]) == 0
    assert newest() == 4


def other_folder(place):
    write(place / "others" / "pets", pictures(seed=1))
    return ["--data", "others/pets"]


def deleted(place):
    for name in ("03.png", "17.png"):
        (place / "pets" / name).unlink()
    return []


def replaced(place, images):
    replace(place / "pets", images)
    return []


OTHERS = {  # and words of the answer
    "another folder of that name": (other_folder, []),
    "two deleted": (deleted, ["22", "24"]),
    "one more": (lambda p: replaced(p, pictures(25)), ["24", "25"]),
    "all replaced": (lambda p: replaced(p, pictures(seed=1)), []),
    "half replaced": (
        lambda p: replaced(p, np.concatenate([pictures()[:12], pictures(seed=1)[12:]])),
        [],
    ),
    "all darker": (lambda p: replaced(p, pictures() // 2), []),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_images_are_refused_with_a_way_out(halfway, capsys, name):
    make, words = OTHERS[name]
    options = make(halfway)
    before = everything_below(halfway)
    ask = [*BEGIN, "--resume", *options]
    refused(ask, capsys, "--other-images", *words)
    assert everything_below(halfway) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_images_are_taken_when_that_is_wanted_and_known_from_then_on(halfway, caplog, name):
    make, _ = OTHERS[name]
    options = make(halfway)
    assert main([*RESUME, *options, "--other-images"]) == 0
    assert any(record.levelname == "WARNING" for record in caplog.records)
    assert newest() == 4
    assert main([*RESUME, *options, "--training.steps", "6"]) == 0


def test_images_that_are_gone_are_named(halfway, capsys):
    moved(halfway, "dogs")
    refused(RESUME, capsys, "pets", "--data")


def renamed(images, folder):
    images.name = "something else"
    return images


def as_streamed_files(images, folder):
    for i, pixels in enumerate(images.images):
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(folder / f"{i:02d}.png")
    return image_folder(folder, 8, 1, memory_limit=0)


@pytest.mark.parametrize("make", [renamed, as_streamed_files])
def test_python_goes_on_with_the_same_images_under_another_name(tmp_path, make):
    train(tiny_config(steps=2), tiny_images(grey_levels=256), tmp_path / "run")
    same = make(tiny_images(grey_levels=256), tmp_path / "images")
    assert train(tiny_config(steps=4), same, tmp_path / "run", resume=True).step == 4


@pytest.mark.parametrize("change", [{"seed": 5}, {"n": 9}, {"n": 11}], ids=str)
def test_python_does_not_go_on_with_other_images_of_the_same_name(tmp_path, change):
    train(tiny_config(steps=2), tiny_images(), tmp_path)
    with pytest.raises(DdpmError, match="images"):
        train(tiny_config(steps=4), tiny_images(**change), tmp_path, resume=True)


# -- measuring -----------------------------------------------------------------------------------


def elsewhere(place, monkeypatch):
    """Another project's folder, with images of the same name in it."""
    write(place / "project" / "pets", pictures(seed=1))
    monkeypatch.chdir(place / "project")


WRONG = {
    "all replaced": lambda p, m: replace(p / "pets", pictures(seed=1)),
    "some deleted": lambda p, m: replace(p / "pets", pictures()[:20]),
    "some more": lambda p, m: replace(p / "pets", pictures(30)),
    "half replaced": lambda p, m: replace(
        p / "pets", np.concatenate([pictures()[:12], pictures(seed=1)[12:]])
    ),
    "another folder": elsewhere,
    "gone": lambda p, m: shutil.rmtree(p / "pets"),
}
MEASURES = {
    "measure": lambda run: ["measure", run, *BRIEFLY, "--images", "8"],
    "measure --out": lambda run: [
        "measure",
        run,
        *BRIEFLY,
        "--images",
        "8",
        "--out",
        "m.safetensors",
    ],
    "evaluate": lambda run: ["evaluate", run, "--bpd", "--split", "train", "--steps", "2"],
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_is_measured_on_what_took_the_place_of_the_images(
    complete, monkeypatch, capsys, wrong, measure
):
    WRONG[wrong](complete, monkeypatch)
    before = everything_below(complete)
    refused(MEASURES[measure](complete / "run"), capsys, "--data")
    assert everything_below(complete) == before


@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_named_is_measured_on(complete, measure):
    write(complete / "others", pictures(30, seed=1))
    assert main([*map(str, MEASURES[measure]("run")), "--data", "others"]) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_the_images_themselves_need_not_be_named(complete, measure):
    before = checkpoint_path("run", 4).stat().st_size
    assert main(MEASURES[measure]("run")) == 0
    assert checkpoint_path("run", 4).stat().st_size == before
