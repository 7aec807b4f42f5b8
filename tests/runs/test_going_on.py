"""Runs that go on with what stands in their folder, and the commands that they tell to type."""

import json
import os
import shlex
import subprocess

import pytest

from ddpm.cli import main
from ddpm.runs.checkpoint import CHECKSUMS, load_checkpoint, save_checkpoint
from full_range import one_thread
from helpers import checkpoint_path, tiny_model
from mistakes import everything_below, refused
from runs.small_run import BEGIN, RESUME, TRAIN, newest, pictures, settings, write

pytestmark = pytest.mark.slow  # many members


@pytest.fixture(autouse=True)
def single():
    with one_thread():
        yield


# -- what stands there ---------------------------------------------------------------------------


def in_another_folder(place, monkeypatch):
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    return ["train", "--resume", "../run", "--data", "../pets"]


def by_a_link(place, monkeypatch):
    (place / "newest").symlink_to("run")
    return ["train", "--resume", "newest"]


def at_home(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    return ["train", "--resume", "~/run"]


def edited_by_hand(place, monkeypatch):
    config = settings()
    config["training"]["steps"] = 6
    (place / "run" / "config.json").write_text(json.dumps(config))
    return RESUME


def of_an_older_version(place, monkeypatch):
    """A run that says nothing of its images but the name of their folder."""
    path = checkpoint_path("run", 2)
    tensors, metadata = load_checkpoint(path, training=True)
    known = ("data", "step", "images", "seconds", "images_before", "seconds_before", "loss")
    history = {key: metadata["history"][key] for key in known}
    rest = {k: v for k, v in metadata.items() if k in ("config", "images") and k not in CHECKSUMS}
    save_checkpoint(path, tensors, {**rest, "history": history})
    old = {k: v for k, v in settings().items() if k != "images"}
    old["data"].pop("hold_out", None)
    (place / "run" / "config.json").write_text(json.dumps(old))
    return [*BEGIN, "--resume"]


GOES_ON = {  # how it is asked, and the step that it comes to
    "by its folder": (lambda p, m: RESUME, 4),
    "with =": (lambda p, m: ["train", "--resume=run"], 4),
    "with a slash": (lambda p, m: ["train", "--resume", "run/"], 4),
    "with its whole path": (lambda p, m: ["train", "--resume", str(p / "run")], 4),
    "by a link": (by_a_link, 4),
    "at home": (at_home, 4),
    "from another folder": (in_another_folder, 4),
    "with more steps": (lambda p, m: [*RESUME, "--training.steps", "6"], 6),
    "options first": (lambda p, m: ["train", "--training.steps", "6", "--resume", "run"], 6),
    "no more than it has": (lambda p, m: [*RESUME, "--training.steps", "2"], 2),
    "by preset and --out": (lambda p, m: ["train", "digits", "--out", "run", "--resume"], 4),
    "by preset, more steps": (
        lambda p, m: ["train", "digits", "--out", "run", "--resume", "--training.steps", "6"],
        6,
    ),
    "with all its options": (
        lambda p, m: [*BEGIN, "--resume"],
        4,
    ),
    "edited by hand": (edited_by_hand, 6),
    "of an older version": (of_an_older_version, 4),
}


QUICK = ["by its folder", "with =", "with more steps", "by preset and --out", "edited by hand"]
OTHER = [pytest.param(n, marks=pytest.mark.slow) for n in GOES_ON if n not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHER])
def test_a_run_goes_on_with_what_stands_there(halfway, monkeypatch, name):
    make, end = GOES_ON[name]
    before = settings()
    arguments = make(halfway, monkeypatch)
    assert main(arguments) == 0
    monkeypatch.chdir(halfway)
    assert newest() == end
    after = settings()
    assert after["network"] == before["network"]
    assert after["diffusion"] == before["diffusion"]
    assert after["training"] == {**before["training"], "steps": after["training"]["steps"]}
    assert after["data"]["path"].endswith("pets")


def test_a_complete_run_stays_as_it_is(halfway):
    assert main(RESUME) == 0
    before = checkpoint_path("run", 4).read_bytes()
    assert main(RESUME) == 0
    assert checkpoint_path("run", 4).read_bytes() == before


CHANGED = {
    "the learning rate": ("training.lr", "0.0005"),
    "the warm-up": ("training.warmup", "7"),
    "the average": ("training.ema_decay", "0.5"),
    "the gradient": ("training.grad_clip", "0.25"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_of_what_is_learned_is_told_and_kept(halfway, capsys, caplog, name):
    setting, value = CHANGED[name]
    assert main([*RESUME, f"--{setting.replace('_', '-')}", value]) == 0
    told = caplog.text + "".join(capsys.readouterr())
    assert setting in told.replace("-", "_").replace("__", "--")
    assert value in told
    group, key = setting.split(".")
    assert settings()[group][key] == float(value)


def only_a_model(place):
    tiny_model().save(checkpoint_path("model", 3))
    return "model"


REFUSED = {  # what is asked, and words of the answer
    "nothing there": (lambda p: ["train", "--resume", "nowhere"], ["nowhere"]),
    "an empty folder": (lambda p: ["train", "--resume", (p / "x").mkdir() or "x"], ["x"]),
    "a folder of images": (lambda p: ["train", "--resume", "pets"], ["pets"]),
    "an image": (lambda p: ["train", "--resume", "pets/00.png"], ["00.png"]),
    "the package's model": (lambda p: ["train", "--resume", "cifar10-small"], ["cifar10-small"]),
    "a model without its optimiser": (lambda p: ["train", "--resume", only_a_model(p)], ["model"]),
    "no folder": (lambda p: ["train", "--resume"], ["resume"]),
    "preset, no such run": (lambda p: ["train", "digits", "--out", "new", "--resume"], ["new"]),
    "another network": (lambda p: [*RESUME, "--network.ch", "16"], ["network"]),
    "another T": (lambda p: [*RESUME, "--diffusion.timesteps", "30"], ["diffusion"]),
    "another batch": (lambda p: [*RESUME, "--training.batch-size", "8"], ["batch", "4", "8"]),
    "another seed": (lambda p: [*RESUME, "--training.seed", "1"], ["seed"]),
    "another loss": (lambda p: [*RESUME, "--training.loss", "vlb"], ["loss"]),
    "mirrored images": (lambda p: [*RESUME, "--data.flip"], ["flip"]),
    "another size": (lambda p: [*RESUME, "--data.image-size", "16"], ["8", "16"]),
    "no such option": (lambda p: [*RESUME, "--training.momentum", "1"], ["momentum"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_another_run_is_refused(halfway, capsys, name):
    make, words = REFUSED[name]
    arguments = make(halfway)
    before = everything_below(halfway)
    refused(arguments, capsys, *words)
    assert everything_below(halfway) == before


def test_a_configuration_that_was_cut_off_is_no_traceback(halfway, capsys):
    (halfway / "run" / "config.json").write_text('{"data": {')
    code = main(RESUME)
    assert code == 0 or (code == 2 and "config.json" in capsys.readouterr().err)


# -- what a run tells you to type ----------------------------------------------------------------

NAMES = [
    *("my run", "it's", 'the "best"', "$HOME", "a;b", "a&b", "run*", "(1)", "#1", "back\\slash"),
    *("läuft", "-n"),
]


def typed(line):
    """The arguments of a command line as a shell takes it apart."""
    command = f"printf '%s\\0' {line}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    program, *arguments = os.fsdecode(done.stdout).split("\0")[:-1]
    assert program == "ddpm"
    return arguments


def told(capsys, words):
    """What stands behind `words` in what a command printed."""
    (line,) = [x for x in capsys.readouterr().out.splitlines() if words in x]
    return line.split(words, 1)[1].strip()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES[3:]]


@pytest.mark.parametrize("name", [*NAMES[:3], *SLOW])
def test_what_a_run_says_can_be_typed_as_it_stands(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / f"{name} pets", pictures(8))
    out = name if name not in ("~", "-n") else f"./{name}"
    images = f"--data=./{name} pets"
    assert main([*TRAIN, images, f"--out={out}", "--max-minutes", "1e-9"]) == 0
    again = typed(told(capsys, "resume with:"))
    assert main(again) == 0
    assert newest(tmp_path / name) == 2
    assert main([*again, "--max-minutes", "10"]) == 0
    draw = typed(told(capsys, "draw from it:"))
    assert main([*draw, "-n", "1", "--out", "one.png"]) == 0


def test_what_the_shell_splits_is_what_shlex_splits():
    """So that the test above tests what it says."""
    assert typed("ddpm " + shlex.join(NAMES)) == NAMES
