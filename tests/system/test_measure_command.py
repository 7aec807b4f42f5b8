"""`ddpm measure`, above all of a model that came from elsewhere and does not know its images."""

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from ddpm.cli import main
from ddpm.cli.progress import about
from ddpm.cli.sample import Sample, batch_size
from ddpm.data.content import DataFacts, data_facts
from ddpm.data.digits import digits
from ddpm.data.images import ImageFormat
from ddpm.data.open import open_data
from ddpm.errors import DdpmError
from ddpm.evaluation.held_out import IMAGES, judging_plan
from ddpm.loading import load
from ddpm.model import Ddpm
from ddpm.provenance import read_provenance
from ddpm.runs.folder import RunFolder
from ddpm.runs.history import History
from ddpm.training import train
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, tensors_of, tiny_config, tiny_model
from mistakes import everything_below, refused
from runs.small_run import pictures, settings, write

MEASURE = [
    "measure",
    "run",
    "--data",
    "pets",
    "--last-stage-steps",
    "4",
    "--images",
    "8",
    "--timesteps",
    "5",
]


def from_elsewhere(height=8, width=8):
    """A model without a word about its images."""
    tiny = tiny_model()
    config = replace(tiny.config, data=replace(tiny.config.data, path=None, image_size=height))
    network = config.build_network((1, height, width))
    network.load_state_dict(tiny.network.state_dict())
    return Ddpm(config, ImageFormat(1, height, width), network, history=History())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with the run of such a model, and `pets`, of which 4 are held out."""
    monkeypatch.chdir(tmp_path)
    model = from_elsewhere()
    model.save(checkpoint_path("run", 0))
    said = {**model.config.to_dict(), "source": "far away"}
    RunFolder(Path("run")).config.write_text(json.dumps(said))
    write(tmp_path / "pets", pictures())
    write(tmp_path / "pets" / "test", pictures(4, seed=2))
    write(tmp_path / "others", pictures(30, seed=1))
    with one_thread():
        yield tmp_path


@pytest.fixture
def measured(place):
    """The same, measured."""
    assert main(MEASURE) == 0
    return place


def weights_of(run):
    """All tensors of a run but the denoising error, the last stage and held-out images' bits."""
    tensors, learned = tensors_of(run), ("denoising", "codec", "held_out")
    return {name: value for name, value in tensors.items() if not name.startswith(learned)}


# -- what is learned once ------------------------------------------------------------------------


def test_a_model_from_elsewhere_learns_what_images_it_was_trained_on(place, capsys):
    before = weights_of("run")
    assert main(MEASURE) == 0
    said = capsys.readouterr().out.strip().splitlines()
    assert any("24 images of pets in pets" in line and "trained on" in line for line in said)
    model = load("run")
    facts = data_facts(*(open_data("pets", s, image_size=8, channels=1) for s in ("train", "test")))
    assert model.history == History(data="pets", facts=facts)
    assert (facts.count, facts.held_out) == (24, 4)
    assert model.config.data.path == "pets"
    error = model.denoising_error
    assert (len(error.timesteps), error.timesteps[0], error.timesteps[-1]) == (5, 0, 19)
    assert error.images == 8
    after = weights_of("run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_settings_of_the_run_say_so_too_and_keep_the_rest(measured):
    found, model = settings(), load("run")
    assert found["source"] == "far away"
    assert found["data"]["path"] == "pets"
    assert found["data"] == json.loads(json.dumps(model.config.to_dict()["data"]))
    assert History.read({"facts": found["images"]}).facts == model.history.facts


def test_bits_of_held_out_images_are_kept_beside_which_others_are_judged(measured):
    model = load("run")
    images = open_data("pets", "test", image_size=8, channels=1)
    found = model.bound(images[torch.arange(4)], plan=judging_plan(model)).total
    assert model.held_out is not None
    assert model.held_out.name == images.name
    assert model.held_out.bits_per_dim == pytest.approx(tuple(map(float, found)))
    model.save("elsewhere.safetensors")
    assert load("elsewhere.safetensors").held_out == model.held_out


def test_data_without_held_out_images_are_said_to_have_none(place, capsys):
    assert main([*MEASURE[:3], "others", *MEASURE[4:]]) == 0
    assert "no held-out images" in capsys.readouterr().out
    assert load("run").held_out is None


def test_what_held_out_images_took_before_stays_and_is_said_to_be_of_before(measured, capsys):
    before = load("run").held_out
    capsys.readouterr()
    assert main([*MEASURE[:3], "others", *MEASURE[4:], "--json"]) == 0
    told = capsys.readouterr()
    assert (
        f"no held-out images; what was measured before stays: 4 held-out images of {before.name}"
        in told.err
    )
    assert json.loads(told.out)["figures"]["held_out_images"] == before.name
    assert load("run").held_out == before


def test_bits_of_held_out_images_are_those_of_other_weights_once_training_goes_on(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(steps=2, save_every=2, last_stage_steps=2)
    train(config, digits("train"), "run")
    assert main(["measure", "run", "--images", "4", "--last-stage-steps", "0"]) == 0
    assert load("run").held_out.name == "digits (test)"
    assert len(load("run").held_out.bits_per_dim) == IMAGES
    again = train(config, digits("train"), "run", resume=True)  # which is complete
    assert load(again.checkpoint).held_out is not None
    more = replace(config, training=replace(config.training, steps=3))
    result = train(more, digits("train"), "run", resume=True)
    assert load(result.checkpoint).held_out is None


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_settings_are_written_anew(place, text):
    RunFolder(place / "run").config.write_text(text)
    assert main(MEASURE) == 0
    assert settings()["data"]["path"] == "pets"
    assert settings()["training"] == asdict(load("run").config)["training"]


def test_a_run_without_settings_gets_none(place):
    RunFolder(place / "run").config.unlink()
    assert main(MEASURE) == 0
    assert not RunFolder(place / "run").config.exists()
    assert load("run").history.data == "pets"


AFTERWARDS = {
    "evaluate": ["evaluate", "run", "--bpd", "--steps", "3"],
    "evaluate on training images": ["evaluate", "run", "--bpd", "--steps", "3", "--split", "train"],
    "figure": ["figure", "denoising", "run", "--columns", "3"],
    "measure": ["measure", "run", *BRIEFLY, "--images", "4"],
    "compress": ["compress", "run", "pets/00.png", "-o", "x.ddpm", "--steps", "2"],
    "table 1": ["reproduce", "table1", "run", "--images", "2"],
}


@pytest.mark.parametrize("command", AFTERWARDS)
def test_no_command_needs_the_images_to_be_named_afterwards(measured, command):
    assert main(AFTERWARDS[command]) == 0


def test_what_took_the_place_of_the_images_is_not_taken_for_them(measured, capsys):
    (measured / "pets" / "00.png").unlink()
    refused(AFTERWARDS["evaluate"], capsys, "not those that this model was trained on", "--data")


def test_a_second_measure_on_other_images_changes_the_error_alone(measured, capsys):
    before, settings_before = load("run"), settings()
    capsys.readouterr()
    assert main(["measure", "run", *BRIEFLY, "--data", "others", "--images", "8"]) == 0
    assert "trained on" not in capsys.readouterr().out
    after = load("run")
    assert (after.history, after.config) == (before.history, before.config)
    assert settings() == settings_before
    assert len(after.denoising_error.timesteps) == 20


KNOWN = {  # each is enough to be a model that says what it was trained on
    "its name": {"history": History(data="noise")},
    "the path": {"path": "elsewhere/pets"},
    "the facts": {"history": History(facts=DataFacts("noise", 3, 0, (1, 8, 8), 256, (1.0,) * 3))},
}


@pytest.mark.parametrize("known", KNOWN)
def test_a_model_that_knows_something_of_its_images_keeps_that(place, known):
    model = from_elsewhere()
    model.history = KNOWN[known].get("history", History())
    data = replace(model.config.data, path=KNOWN[known].get("path"))
    model.config = replace(model.config, data=data)
    model.save(checkpoint_path("known", 0))
    assert main(["measure", "known", *MEASURE[2:]]) == 0
    found = load("known")
    assert (found.history, found.config) == (model.history, model.config)
    assert found.denoising_error is not None


def test_another_file_gets_all_of_it_and_the_run_stays_as_it_was(place):
    before = everything_below(place / "run")
    assert main([*MEASURE, "--out", "measured.safetensors"]) == 0
    assert everything_below(place / "run") == before
    assert load("measured.safetensors").history.data == "pets"
    assert main(["evaluate", "measured.safetensors", "--bpd", "--steps", "2"]) == 0


# -- what is refused, and what nothing is left of --------------------------------------------------


UNSAID = {
    "measure": ["measure", "run"],
    "evaluate": ["evaluate", "run", "--bpd"],
    "evaluate samples": ["evaluate", "run", "--features", "pixels", "--samples", "2"],
    "figure": ["figure", "denoising", "run"],
    "reproduce": ["reproduce", "table4", "run"],
}


@pytest.mark.parametrize("command", UNSAID)
def test_without_images_every_command_says_how_to_name_them_once(place, capsys, command):
    before = everything_below(place / "run" / "checkpoints")
    said = refused(UNSAID[command], capsys, "came from elsewhere", "`ddpm measure RUN --data ")
    assert ("behind the model" if command == "figure" else "set --data") in said
    assert everything_below(place / "run" / "checkpoints") == before


def test_a_model_that_knows_the_name_of_its_images_alone_says_that(place, capsys):
    model = from_elsewhere()
    model.history = History(data="noise")
    model.save(place / "m.safetensors")
    refused(["measure", "m.safetensors"], capsys, "where its images (noise) are", "--data")


@pytest.mark.parametrize("count", [-3, 0, 1, 21])
def test_a_number_of_timesteps_out_of_range_is_refused(place, capsys, count):
    before = everything_below(place)
    refused([*MEASURE[:-1], count], capsys, "--timesteps", "2..20", f"got {count}")
    assert everything_below(place) == before


def test_a_model_of_no_squares_is_refused(place, capsys):
    from_elsewhere(8, 4).save(checkpoint_path("wide", 0))
    refused(["measure", "wide", *MEASURE[2:]], capsys, "squares", "from Python")


def test_a_folder_of_another_layout_is_refused_unless_the_measured_model_gets_a_file(place, capsys):
    assert main(["export", "run", "--out", "diffusers"]) == 0
    before = everything_below(place)
    ask = ["measure", "diffusers", *MEASURE[2:]]
    refused(ask, capsys, "`ddpm import diffusers --out RUN`", "--out FILE")
    assert everything_below(place) == before
    assert main([*ask, "--out", "m.safetensors"]) == 0
    assert load("m.safetensors").history.data == "pets"


def test_a_file_of_no_images_is_refused(place, capsys):
    (place / "notes.txt").write_text("all mine")
    before = everything_below(place / "run")
    refused(["measure", "run", "--data", "notes.txt"], capsys, "notes.txt")
    refused(["measure", "run", "--data", "nowhere"], capsys, "nowhere does not exist")
    assert everything_below(place / "run") == before


def interrupting(*_):
    """A bar at which somebody loses patience."""

    def progress(done, total, label):
        if done > total // 2:
            raise KeyboardInterrupt

    return contextlib.nullcontext(progress)


def test_a_measurement_that_is_interrupted_leaves_the_run_as_it_was(place, monkeypatch):
    before = everything_below(place)
    monkeypatch.setattr("ddpm.cli.measure.progress_bar", interrupting)
    assert main(MEASURE) == 130
    assert everything_below(place) == before


def test_a_file_that_cannot_be_written_leaves_the_settings_as_they_were(place, monkeypatch, capsys):
    def full(*_):
        raise DdpmError("the disk is full")

    before = everything_below(place)
    monkeypatch.setattr("ddpm.loading.save_checkpoint", full)
    refused(MEASURE, capsys, "the disk is full")
    assert everything_below(place) == before


# -- what is said beforehand -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--images", "8", "--timesteps", "5"],
            "measuring 5 timesteps of 8 images: 40 evaluations, ",
        ),
        ([], "measuring 20 timesteps of 24 images: 480 evaluations, "),
        (["--images", "1"], "measuring 20 timesteps of 1 image: 20 evaluations, "),
    ],
)
def test_before_it_begins_it_says_how_long_it_will_take(place, monkeypatch, options, words):
    told = []
    monkeypatch.setattr("ddpm.cli.measure.say", lambda *lines: told.extend(lines))

    @contextlib.contextmanager
    def bar():
        yield lambda done, total, label: told.append((done, total))

    monkeypatch.setattr("ddpm.cli.measure.progress_bar", bar)
    last = ["--last-stage-steps", "3"]
    assert main(["measure", "run", "--data", "pets", *options, *last]) == 0
    assert told[0].startswith(words)
    assert told[0].endswith(
        "; fewer with --images or --timesteps; then 3 steps of training of the last stage and 80 "
        "evaluations of 4 held-out images"
    )
    total = int(words.split(": ")[1].split()[0])
    steps = [step for step in told if isinstance(step, tuple)]
    assert (total, total) in steps
    assert (3, 3) in steps
    assert steps[-1] == (80, 80)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (12.3, "about 12 s"),
        (59.7, "about 1 min"),
        (3570, "about 1 h 0 min"),
        (7800, "about 2 h 10 min"),
        (400_000, "about 4.6 days"),
    ],
)
def test_durations_are_for_people(seconds, words):
    assert about(seconds) == words


# -- how many images at a time ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "begun", "side", "size"),
    [
        (None, {}, 32, 64),
        (None, {}, 64, 16),
        (None, {}, 256, 1),
        (7, {}, 256, 7),
        (None, {"batch_size": 64}, 256, 64),
        (None, {"batch_size": 16}, 32, 16),
    ],
)
def test_samples_are_drawn_as_many_at_a_time_as_fit(asked, begun, side, size):
    args = Sample(n=500, batch_size=asked)
    assert batch_size(args, begun, ImageFormat(3, side, side)) == size


@pytest.mark.parametrize(("side", "size"), [(8, "64"), (48, "28")])
def test_pictures_say_how_many_images_at_a_time_they_were_made_of(place, side, size):
    from_elsewhere(side, side).save(place / "m.safetensors")
    few = ["--steps", "1", "--trajectory", "even", "--n", "30"]
    assert main(["figure", "samples", "m.safetensors", *few, "--out", "f.png"]) == 0
    assert str(read_provenance(place / "f.png").settings["batch_size"]) == size
    few[4:] = ["-n", "30"]
    assert main(["sample", "m.safetensors", *few, "--out", "s.png"]) == 0
    command = read_provenance(place / "s.png").command
    assert command[command.index("--batch-size") + 1] == str(min(30, int(size)))
