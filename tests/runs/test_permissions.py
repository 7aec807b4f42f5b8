"""Models that may only be read work; what may not be read or written is refused for that reason."""

import shutil

import pytest
from PIL import Image

from ddpm.cli import main
from full_range import one_thread
from helpers import BRIEFLY
from mistakes import everything_below, refused
from powers import permissions_count, with_modes
from runs.small_run import BEGIN, RESUME, TRAIN, pictures, write

pytestmark = pytest.mark.slow  # many members


CHECKPOINTS, NEWEST = "run/checkpoints", "run/checkpoints/step-00000004.safetensors"
FEW = ["--steps", "2", "--trajectory", "optimal", "-n", "2"]
ONE = ["sample", "run", "-n", "1", "--out", "new.png"]


@pytest.fixture(scope="module")
def prepared(template, tmp_path_factory):
    """Beside `run`: a model's file, an archive, an image, and a folder to lock."""
    here = tmp_path_factory.mktemp("permissions") / "w"
    shutil.copytree(template / "kept", here)
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(here)
        shutil.copy(NEWEST, "model.safetensors")
        (here / "models").mkdir()
        shutil.copy(NEWEST, "models/m.safetensors")
        shutil.copytree("run", "deep/run")
        write(here / "one", pictures(1))
        (here / "one" / "00.png").rename("one.png")
        (here / "locked").mkdir()
        compress = ["compress", "model.safetensors", "one.png", "-o", "x.ddpm", "--steps", "2"]
        assert main(compress) == 0
    return here


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    """A working folder with copies of them."""
    shutil.copytree(prepared, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    with one_thread():
        yield tmp_path / "w"


def all_but_pins(folder):
    """Everything below it but the list to which `compress` adds before it reads images, and of
    which it takes nothing back, since another archive may rely on it by then."""
    found = everything_below(folder)
    return {path: data for path, data in found.items() if path.name != "pinned.txt"}


def read_only(folder):
    """The modes of a folder that may only be read, what is in it first."""
    below = {path: 0o555 if path.is_dir() else 0o444 for path in folder.rglob("*")}
    return {**below, folder: 0o555}


# -- what may only be read -----------------------------------------------------------------------

WORKS = {
    "sample": lambda model: ["sample", model, "-n", "2", "--out", "a.png"],
    "sample few steps": lambda model: ["sample", model, *FEW, "--out", "a.npz"],
    "sample into a folder": lambda model: ["sample", model, *FEW, "--out", "a"],
    "compress": lambda model: ["compress", model, "one.png", "-o", "y.ddpm", "--steps", "2"],
    "decompress": lambda model: ["decompress", model, "x.ddpm", "-o", "y.png"],
    "evaluate": lambda model: [
        *("evaluate", model, "--bpd", "--split", "train", "--steps", "2", "--images", "2"),
        *("--out", "figures"),
    ],
    "measure into another file": lambda model: [
        *("measure", model, *BRIEFLY, "--images", "2", "--out", "measured.safetensors"),
    ],
    "info": lambda model: ["info", model],
    "train from it": lambda model: [
        *(*TRAIN, "--data", "pets", "--out", "next", "--training.start-from", model),
    ],
}


@pytest.mark.parametrize("model", ["run", "models/m.safetensors"])
@pytest.mark.parametrize("name", WORKS)
def test_a_model_that_may_only_be_read_does_everything_that_does_not_change_it(place, name, model):
    folder = place / model.split("/")[0]
    before = everything_below(folder)
    with with_modes(read_only(folder)):
        assert main(WORKS[name](model)) == 0
    assert everything_below(folder) == before


@pytest.mark.parametrize("command", [["watch", "run", "--once"], ["plot", "run", "--out", "c.png"]])
def test_a_run_that_may_only_be_read_can_be_watched(place, command):
    with with_modes(read_only(place / "run")):
        assert main(command) == 0


# -- what may not be read ------------------------------------------------------------------------

UNREADABLE = {  # what is asked, and what may not be read
    "a model's file": (["sample", "model.safetensors", "--out", "one.npz"], "model.safetensors"),
    "its folder": (["sample", "models/m.safetensors", "--out", "one.npz"], "models"),
    "a model asked for": (["info", "model.safetensors"], "model.safetensors"),
    "a run": (ONE, "run"),
    "a run's checkpoints": (ONE, CHECKPOINTS),
    "a run's newest checkpoint": (ONE, NEWEST),
    "the folder of a run's folder": (["sample", "deep/run", "--out", "one.npz"], "deep"),
    "a run asked for": (["info", "run"], "run"),
    "a run watched": (["watch", "run", "--once"], "run"),
    "a configuration watched": (["watch", "run", "--once"], "run/config.json"),
    "a log watched": (["watch", "run", "--once"], "run/stats.jsonl"),
    "a log plotted": (["plot", "run", "--out", "curves.png"], "run/stats.jsonl"),
    "a run to go on with": (RESUME, "run"),
    "checkpoints to go on from": ([*BEGIN, "--resume"], CHECKPOINTS),
    "the newest of them": ([*BEGIN, "--resume"], NEWEST),
    "weights to start from": (
        [*TRAIN, "--data", "pets", "--out", "n", "--training.start-from", "model.safetensors"],
        "model.safetensors",
    ),
    "images to train on": ([*TRAIN, "--data", "pets", "--out", "new"], "pets"),
    "images to measure on": (["measure", "run", "--data", "pets"], "pets"),
    "images to evaluate": (["evaluate", "run", "--bpd", "--split", "train"], "pets"),
    "an image to compress": (["compress", "run", "one.png", "-o", "y.ddpm"], "one.png"),
    "images to compress": (["compress", "run", "pets", "-o", "y.ddpm"], "pets"),
    "an archive": (["decompress", "run", "x.ddpm", "-o", "y.png"], "x.ddpm"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_may_not_be_read_is_refused_for_that_reason(place, capsys, name):
    arguments, forbidden = UNREADABLE[name]
    before = all_but_pins(place)
    with with_modes({place / forbidden: 0}):
        refused(arguments, capsys, "Permission denied")
    assert all_but_pins(place) == before


# -- what may not be written ---------------------------------------------------------------------

UNWRITABLE = {  # what is asked, and the folder where nothing may be written
    "samples": (["sample", "run", "-n", "1", "--out", "locked/x.png"], "locked"),
    "samples as an array": (["sample", "run", "-n", "1", "--out", "locked/x.npz"], "locked"),
    "samples in a folder": (["sample", "run", "-n", "1", "--out", "locked/x"], "locked"),
    "an archive": (["compress", "run", "one.png", "-o", "locked/y.ddpm"], "locked"),
    "an image": (["decompress", "model.safetensors", "x.ddpm", "-o", "locked/y.png"], "locked"),
    "images": (["decompress", "model.safetensors", "x.ddpm", "-o", "locked/y"], "locked"),
    "a run": ([*TRAIN, "--data", "pets", "--out", "locked/new"], "locked"),
    "a demo": (["demo", "--out", "locked/demo"], "locked"),
    "a run that goes on": ([*BEGIN, "--resume", "--training.steps", "6"], "run"),
    "its checkpoints": ([*BEGIN, "--resume", "--training.steps", "6"], CHECKPOINTS),
    "a measured model": (["measure", "run"], CHECKPOINTS),
    "a copy of it": (["measure", "run", "--out", "locked/m.safetensors"], "locked"),
    "figures": (["evaluate", "run", "--bpd", "--split", "train", "--steps", "2"], "run"),
    "figures elsewhere": (
        ["evaluate", "run", "--bpd", "--split", "train", "--steps", "2", "--out", "locked/e"],
        "locked",
    ),
    "curves": (["plot", "run"], "run"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_may_not_be_written_is_refused_for_that_reason(place, capsys, name):
    arguments, folder = UNWRITABLE[name]
    before = all_but_pins(place)
    with with_modes({place / folder: 0o555}):
        refused(arguments, capsys, "Permission denied")
    assert all_but_pins(place) == before


# -- other reasons -------------------------------------------------------------------------------


def dangling(place):
    (place / "link").symlink_to("nowhere.safetensors")
    return ["sample", "link"], ["link", "nowhere.safetensors"]


def endless(place):
    (place / "link").symlink_to("link")
    return ["sample", "link"], ["link", "symbolic links"]


def below_a_file(place):
    return ["sample", "one.png/run"], ["one.png"]


def too_long(place):
    return ["sample", "x" * 300], ["too long"]


@pytest.mark.parametrize("make", [dangling, endless, below_a_file, too_long])
def test_the_reason_that_is_told_is_the_true_one(place, capsys, make):
    arguments, words = make(place)
    refused(arguments, capsys, *words)


def test_permissions_really_count_here(place):
    """So that the tests above test what they say."""
    (place / "one.png").chmod(0)
    with permissions_count(), pytest.raises(PermissionError):
        (place / "one.png").read_bytes()
    with Image.open(place / "one.png") as image:
        assert image.size == (8, 8)
