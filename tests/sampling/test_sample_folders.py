"""Where `ddpm sample` writes: folders that are never a mix, and files that are never replaced."""

import errno
import json
import shutil

import pytest
from PIL import Image

from ddpm.cli import main
from ddpm.networks.unet import UNet
from helpers import checkpoint_path, measured_model, tiny_model
from mistakes import everything_below, refused

pytestmark = pytest.mark.slow  # many members


SAVE = Image.Image.save


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of runs: `plain`, `other` of other weights, and `measured`."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_model().save(checkpoint_path(folder / "plain", 3))
    tiny_model(seed=1).save(checkpoint_path(folder / "other", 3))
    measured_model().save(checkpoint_path(folder / "measured", 3))
    return folder


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """Copies of them, and the current folder is an empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return shutil.copytree(trained, tmp_path / "runs")


def calls_until(monkeypatch, limit=None):
    """Counts calls of the network in a list; after `limit` of them Ctrl-C is pressed."""
    made, forward = [], UNet.forward

    def count(self, x, t):
        if len(made) == limit:
            raise KeyboardInterrupt
        made.append(len(x))
        return forward(self, x, t)

    monkeypatch.setattr(UNet, "forward", count)
    return made


@pytest.fixture
def sample(runs, tmp_path):
    """A function that draws six images in batches of two, and the folder that they go to."""
    out = tmp_path / "out"

    def run(*options, which="plain", n=6, size=2, steps=5):
        command = ["sample", str(runs / which), "-n", str(n), "--batch-size", str(size)]
        plan = ["--steps", str(steps)] if steps else []
        return [*command, *plan, "--out", str(out), *map(str, options)]

    return run, out


def images(folder):
    """Name and bytes of the images; every one can be read whole."""
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def numbers(n):
    return [f"{i:06d}.png" for i in range(n)]


def test_the_folder_holds_the_images_and_how_they_were_made(sample):
    run, out = sample
    assert main(run("--seed", 3)) == 0
    assert sorted(p.name for p in out.iterdir()) == [*numbers(6), "samples.json"]
    settings = json.loads((out / "samples.json").read_text())
    assert settings["seed"] == 3
    assert settings["sampler"] == "ancestral"
    assert {"model", "seed", "sampler", "plan", "precision"} <= set(settings)
    with Image.open(out / "000000.png") as picture:
        assert picture.mode == "L"  # the model is grey


def test_the_same_again_draws_nothing_and_changes_nothing(sample, monkeypatch):
    run, out = sample
    assert main(run()) == 0
    before = everything_below(out)
    assert main(run(size=4)) == 0  # how many at a time is no matter
    made = calls_until(monkeypatch)
    assert main(run()) == 0
    assert made == []
    assert everything_below(out) == before


@pytest.mark.parametrize("n", [7, 12])
def test_more_images_are_added_to_those_that_are_there(sample, n, tmp_path, monkeypatch):
    run, out = sample
    assert main(run()) == 0
    before = images(out)
    made = calls_until(monkeypatch)
    assert main(run(n=n)) == 0
    after = images(out)
    assert sum(made) == 5 * 2 * -(-(n - 6) // 2)  # batches of two, filled up
    assert list(after) == numbers(n)
    assert before.items() <= after.items()
    shutil.rmtree(out)
    assert main(run(n=n)) == 0
    assert images(out) == after


def test_fewer_images_take_none_away(sample, capsys):
    run, out = sample
    assert main(run()) == 0
    before = images(out)
    assert main(run(n=4)) in (0, 2)
    assert images(out) == before


@pytest.mark.parametrize("calls", [0, 3, 10, 14])
def test_finished_images_stay_after_an_interrupt_and_the_same_command_goes_on(
    sample, calls, monkeypatch
):
    run, out = sample
    with monkeypatch.context() as patch:
        calls_until(patch, calls)  # of 15: five steps for each of three batches
        assert main(run()) == 130
    done = images(out) if out.exists() else {}
    assert list(done) == numbers(calls // 5 * 2)
    made = calls_until(monkeypatch)
    assert main(run()) == 0
    assert len(made) == 15 - calls // 5 * 5
    assert sorted(p.name for p in out.iterdir()) == [*numbers(6), "samples.json"]
    whole = images(out)
    assert done.items() <= whole.items()
    shutil.rmtree(out)
    assert main(run()) == 0
    assert images(out) == whole


@pytest.mark.parametrize(
    ("stop", "code"),
    [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left"), 2)],
    ids=["ctrl-c", "disk full"],
)
def test_no_half_image_stays_when_writing_one_ends_early(sample, stop, code, monkeypatch):
    run, out = sample
    written = []

    def half(self, file, *args, **kwargs):
        if len(written) == 3:
            with open(file, "wb") as handle:
                handle.write(b"\x89PNG")
            raise stop
        written.append(file)
        SAVE(self, file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", half)
        assert main(run()) == code
    assert list(images(out)) == numbers(3)
    assert main(run()) == 0
    assert sorted(p.name for p in out.iterdir()) == [*numbers(6), "samples.json"]


def test_a_killed_process_leaves_nothing_that_stands_in_the_way(sample):
    run, out = sample
    assert main(run(n=2)) == 0
    (out / ".000002.png.99999.partial").write_bytes(b"\x89PNG")
    assert main(run()) == 0
    assert list(images(out)) == numbers(6)


def test_an_image_that_is_missing_is_drawn_again(sample):
    run, out = sample
    assert main(run()) == 0
    before = everything_below(out)
    (out / "000003.png").unlink()
    assert main(run()) == 0
    assert everything_below(out) == before


def test_an_empty_folder_is_as_good_as_none(sample):
    run, out = sample
    out.mkdir()
    assert main(run()) == 0
    assert list(images(out)) == numbers(6)


# -- what is no folder of these images -----------------------------------------------------------


def notes(out, runs):
    out.mkdir()
    (out / "notes.txt").write_text("mine")


def old_images(out, runs):
    out.mkdir()
    Image.new("L", (8, 8)).save(out / "000000.png")


def subfolder(out, runs):
    (out / "more").mkdir(parents=True)


def the_run_itself(out, runs):
    shutil.copytree(runs / "plain", out)


def damaged(out, runs):
    made(out, runs)
    (out / "samples.json").write_text("{")


def foreign_json(out, runs):
    out.mkdir()
    (out / "samples.json").write_text('["x"]')


def made(out, runs):
    assert main(["sample", str(runs / "plain"), "-n", "6", "--steps", "5", "--out", str(out)]) == 0


def made_and_more(out, runs):
    made(out, runs)
    Image.new("L", (8, 8)).save(out / "beach.png")


def made_by_other_weights(out, runs):
    made(out, runs)
    shutil.rmtree(runs / "plain")
    shutil.copytree(runs / "other", runs / "plain")


def made_before_more_training(out, runs):
    made(out, runs)
    tiny_model(seed=2).save(checkpoint_path(runs / "plain", 4))


OWN = ["--trajectory", 0, 1, 2, 3, 19, "--variance", "fixed_small"]
MIXES = {
    "a text file": (notes, {}),
    "images of another time": (old_images, {}),
    "a folder": (subfolder, {}),
    "the run itself": (the_run_itself, {}),
    "damaged settings": (damaged, {}),
    "foreign settings": (foreign_json, {}),
    "samples and another image": (made_and_more, {}),
    "another model": (made, {"which": "other"}),
    "the same weights, measured since": (made, {"which": "measured"}),
    "other weights under the same name": (made_by_other_weights, {}),
    "the same run, trained on": (made_before_more_training, {}),
    "another seed": (made, {"options": ["--seed", 1]}),
    "another sampler": (made, {"options": ["--sampler", "ddim"]}),
    "other timesteps": (made, {"options": OWN, "steps": None}),
    "another variance": (made, {"options": ["--variance", "fixed_large"]}),
    "other steps": (made, {"steps": 4}),
    "all steps": (made, {"steps": None}),
    "another precision": (made, {"options": ["--precision", "bf16"]}),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_folder_of_anything_else_is_refused(name, sample, runs, capsys, monkeypatch):
    run, out = sample
    prepare, how = MIXES[name][0], dict(MIXES[name][1])
    prepare(out, runs)
    before = everything_below(out)
    monkeypatch.setattr(UNet, "forward", lambda *_, **__: pytest.fail("drawn in vain"))
    refused(run(*how.pop("options", []), **how, n=8), capsys, out.name)
    assert everything_below(out) == before


def test_another_eta_is_another_setting(sample, capsys):
    run, out = sample
    assert main(run("--sampler", "ddim", "--eta", 0.5)) == 0
    before = everything_below(out)
    refused(run("--sampler", "ddim", "--eta", 0.25), capsys, out.name)
    refused(run("--sampler", "ddim"), capsys, out.name)
    assert everything_below(out) == before
    assert main(run("--sampler", "ddim", "--eta", 0.5, n=7)) == 0
