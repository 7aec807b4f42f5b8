"""Models that travel: an archive keeps the checkpoint that decodes it, files have usual modes."""

import os
import shutil
import stat

import numpy as np
import pytest
from PIL import Image

from ddpm.cli import main
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, checkpoints
from mistakes import everything_below, refused
from runs.small_run import BEGIN, TINY, pictures, write

pytestmark = pytest.mark.slow  # many members


# -- a checkpoint that an archive needs ----------------------------------------------------------

FOURTH = "run/checkpoints/step-00000004.safetensors"


def compress(model, out="x.ddpm", images="one.png"):
    """Put an image into an archive."""
    assert main(["compress", model, images, "-o", out, "--steps", "2"]) == 0


def train_to(steps):
    """Go on with `run`: a checkpoint every two steps, the last two of which are kept."""
    assert main([*BEGIN, "--resume", "--training.steps", str(steps)]) == 0


def kept():
    """The steps whose checkpoints are there."""
    return [int(path.stem[5:]) for path in checkpoints("run")]


def decodes(model, archive="x.ddpm", out="back.png"):
    """Whether an archive of `one.png` gives its pixels again."""
    code = main(["decompress", model, archive, "-o", out])
    if code != 0:
        return False
    with Image.open(out) as now, Image.open("one.png") as was:
        return np.array_equal(np.array(now), np.array(was))


@pytest.fixture
def place(complete):
    """`run` at its end, and an image."""
    write(complete / "one", pictures(1, seed=3))
    (complete / "one" / "00.png").rename("one.png")
    return complete


def by_a_link(place):
    (place / "newest").symlink_to("run")
    return "newest"


WAYS = {  # to name the model that compresses
    "the run": lambda p: "run",
    "the run with a slash": lambda p: "run/",
    "the whole path": lambda p: str(p / "run"),
    "the checkpoint": lambda p: FOURTH,
    "the whole path of the checkpoint": lambda p: str(p / FOURTH),
    "a link to the run": by_a_link,
    "a way around": lambda p: "pets/../run/checkpoints/../checkpoints/step-00000004.safetensors",
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in [*WAYS][2:]]


@pytest.mark.parametrize("name", [*[*WAYS][:2], *SLOW])
def test_the_checkpoint_that_decodes_an_archive_stays(place, name):
    compress(WAYS[name](place))
    before = checkpoint_path("run", 4).read_bytes()
    train_to(8)
    assert kept() == [4, 6, 8]
    assert checkpoint_path("run", 4).read_bytes() == before
    assert decodes("run")


def test_without_an_archive_only_the_last_two_stay(place):
    train_to(8)
    assert kept() == [6, 8]


def test_an_archive_that_was_refused_keeps_nothing(place, capsys):
    refused(["compress", "run", "nowhere.png", "-o", "x.ddpm"], capsys, "nowhere.png")
    train_to(8)
    assert kept() == [6, 8]


@pytest.mark.slow
def test_every_archive_keeps_its_own(place):
    compress("run", "a.ddpm")
    train_to(6)
    compress("run", "b.ddpm")
    train_to(10)
    assert kept() == [4, 6, 8, 10]
    assert decodes("run", "a.ddpm", "a.png")
    assert decodes("run", "b.ddpm", "b.png")


@pytest.mark.slow
def test_it_stays_through_every_later_session(place):
    compress("run")
    for steps in (6, 8):
        train_to(steps)
    assert kept() == [4, 6, 8]
    assert decodes("run")


@pytest.mark.slow
def test_two_archives_of_one_checkpoint_are_no_trouble(place):
    compress("run", "a.ddpm")
    compress(FOURTH, "b.ddpm")
    train_to(8)
    assert kept() == [4, 6, 8]
    assert decodes("run", "b.ddpm")


@pytest.mark.slow
def test_the_run_goes_on_from_its_newest_checkpoint_all_the_same(place, capsys):
    compress("run")
    train_to(8)
    capsys.readouterr()
    assert main(["info", "run"]) == 0
    shown = capsys.readouterr().out
    assert "history.step" in shown
    (line,) = [x for x in shown.splitlines() if "history.step" in x]
    assert "8" in line


def test_info_lists_what_is_kept_for_archives(place, capsys):
    compress("run")
    train_to(8)
    capsys.readouterr()
    assert main(["info", "run"]) == 0
    assert "step-00000004" in capsys.readouterr().out


def test_measuring_does_not_alter_a_checkpoint_that_an_archive_needs(place, capsys):
    compress("run")
    before = everything_below(place)
    refused(["measure", "run", "--images", "8"], capsys, "--out")
    refused(["measure", FOURTH, "--images", "8"], capsys, "--out")
    assert everything_below(place) == before
    assert main(["measure", "run", *BRIEFLY, "--images", "8", "--out", "m.safetensors"]) == 0
    assert decodes("run")


@pytest.mark.slow
def test_a_newer_checkpoint_can_still_be_measured(place):
    compress("run")
    train_to(6)
    assert main(["measure", "run", *BRIEFLY, "--images", "8"]) == 0
    assert decodes("run")


@pytest.mark.slow
def test_a_copy_of_the_run_decodes_too(place):
    compress("run")
    train_to(8)
    shutil.copytree("run", "copy")
    shutil.rmtree("run")
    assert decodes("copy")


def test_the_checkpoint_itself_decodes_and_another_does_not(place, capsys):
    compress("run")
    train_to(8)
    assert decodes(FOURTH)
    newest = checkpoint_path("run", 8)
    refused(["decompress", newest, "x.ddpm", "-o", "other.png"], capsys, "model")


def test_an_archive_of_a_model_outside_a_run_leaves_nothing_beside_it(place):
    (place / "models").mkdir()
    shutil.copy(FOURTH, "models/m.safetensors")
    compress("models/m.safetensors")
    assert [path.name for path in (place / "models").iterdir()] == ["m.safetensors"]
    assert decodes("models/m.safetensors")


# -- modes of files ------------------------------------------------------------------------------

MADE = {  # a file or folder that a command makes
    "the run": "run",
    "its checkpoints": "run/checkpoints",
    "a checkpoint": FOURTH,
    "the configuration": "run/config.json",
    "the log": "run/stats.jsonl",
    "TensorBoard's file": "run/tensorboard/events*",
    "a grid of a run": "run/samples/step-00000004.png",
    "curves": "run/curves.png",
    "a grid": "grid.png",
    "an array": "array.npz",
    "a folder of samples": "samples",
    "an image of it": "samples/000001.png",
    "an archive": "x.ddpm",
    "what comes out of it": "back.png",
    "figures": "run/evaluation",
    "a table": "run/evaluation/*.json",
    "a curve": "run/evaluation/*.csv",
    "a measured model": "m.safetensors",
}


@pytest.fixture(
    scope="module", params=[0o027, pytest.param(0o002, marks=pytest.mark.slow)], ids=oct
)
def made(request, tmp_path_factory):
    """A folder in which all commands have written with one umask, and the umask."""
    here = tmp_path_factory.mktemp("modes")
    write(here / "pets", pictures(8))
    write(here / "one", pictures(1))
    few = ["--steps", "2"]
    grids = ["--training.sample-every", "4", "--training.steps", "4"]
    old = os.umask(request.param)
    try:
        with pytest.MonkeyPatch.context() as patch, one_thread():
            patch.chdir(here)
            for command in (
                ["train", "digits", *TINY, *grids, "--data", "pets", "--out", "run"],
                ["plot", "run"],
                ["evaluate", "run", "--bpd", "--split", "train", *few],
                ["sample", "run", "-n", "2", *few, "--out", "grid.png"],
                ["sample", "run", "-n", "2", *few, "--out", "array.npz"],
                ["sample", "run", "-n", "2", *few, "--out", "samples"],
                ["measure", "run", *BRIEFLY, "--images", "4", "--out", "m.safetensors"],
                ["compress", "run", "one/00.png", "-o", "x.ddpm", *few],
                ["decompress", "run", "x.ddpm", "-o", "back.png"],
            ):
                assert main(command) == 0
    finally:
        os.umask(old)
    return here, request.param


@pytest.mark.parametrize("what", MADE)
def test_files_have_the_modes_that_the_umask_says(made, what):
    here, umask = made
    found = sorted(here.glob(MADE[what]))
    assert found
    for path in found:
        usual = 0o777 if path.is_dir() else 0o666
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(usual & ~umask), path.name
