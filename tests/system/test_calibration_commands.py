"""The calibration from the command line: `--calibrated`, what states it, and how it is measured."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ddpm import Plan
from ddpm.cli import main
from ddpm.cli.parse import switched
from ddpm.loading import load
from ddpm.provenance import read_provenance
from full_range import one_thread
from helpers import BRIEFLY, checkpoint_path, measured_model, tiny_images, tiny_model
from mistakes import everything_below, refused
from runs.small_run import pictures, write

DDIM = ["--sampler", "ddim", "--steps", "4", "-n", "2"]


def as_measured_before(model):
    """The model with what an earlier version would have measured."""
    return replace(model, denoising_error=replace(model.denoising_error, calibration=None))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a model that was measured now, and one that was measured before."""
    monkeypatch.chdir(tmp_path)
    model = measured_model()
    model.save("new.safetensors")
    as_measured_before(model).save("old.safetensors")
    with one_thread():
        yield tmp_path


def told(folder):
    return json.loads((folder / "samples.json").read_text())


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--calibrated"], ["--calibrated", "True"]),
        (["--no-calibrated", "--steps", "3"], ["--calibrated", "False", "--steps", "3"]),
        (["--calibrated", "False"], ["--calibrated", "False"]),
        (["-n", "2", "--calibrated"], ["-n", "2", "--calibrated", "True"]),
        ([], []),
    ],
)
def test_a_switch_of_three_positions_is_typed_like_any_other(given, read):
    assert switched(given) == read


@pytest.mark.parametrize(
    ("sampler", "option", "stated"),
    [
        ("ddim", [], True),
        ("ddim", ["--calibrated"], True),
        ("ddim", ["--no-calibrated"], False),
        ("ancestral", [], None),
        ("ancestral", ["--calibrated"], True),
    ],
)
def test_a_set_states_it_and_its_command_draws_it_again(place, capsys, sampler, option, stated):
    how = ["--sampler", sampler, *DDIM[2:], *option]
    assert main(["sample", "new.safetensors", *how, "--out", "set"]) == 0
    assert ("calibrated" in capsys.readouterr().out) is bool(stated)
    assert told(place / "set")["plan"].get("calibrated") is stated
    origin = read_provenance(place / "set" / "000001.png")
    assert origin.settings["plan"].get("calibrated") is stated
    assert main([*origin.command, "--out", "again"]) == 0
    first, second = ((place / d / "000001.png").read_bytes() for d in ("set", "again"))
    assert first == second
    model = load("new.safetensors", "cpu")
    assert model.plan_samples(sampler, Plan(4, calibrated=stated))[1].calibrated is stated


def test_a_set_of_one_kind_is_not_gone_on_with_as_another(place, capsys):
    assert main(["sample", "new.safetensors", *DDIM, "--out", "set"]) == 0
    before = everything_below(place / "set")
    again = ["sample", "new.safetensors", *DDIM, "--no-calibrated", "--out", "set"]
    refused(again, capsys, "another plan")
    assert everything_below(place / "set") == before


def test_a_model_without_it_states_what_it_always_did(place):
    assert main(["sample", "old.safetensors", *DDIM, "--out", "set"]) == 0
    assert told(place / "set")["plan"].keys() == {"steps", "trajectory", "variance"}
    command = read_provenance(place / "set" / "000000.png").command
    assert not any("calibrated" in word for word in command)


def test_it_is_refused_where_there_is_none(place, capsys):
    tiny_model().save("never.safetensors")
    for name in ("old", "never"):
        asked = ["sample", f"{name}.safetensors", *DDIM, "--calibrated", "--out", "set"]
        refused(asked, capsys, "no calibration", "`ddpm measure RUN`")
    assert not (place / "set").exists()


def test_bits_do_not_use_it_unless_they_are_asked_to_and_state_it(place, capsys):
    write(place / "pets", pictures(6) // 16)
    ask = ["evaluate", "new.safetensors", "--bpd", "--data", "digits", "--images", "8"]
    ask += ["--steps", "3", "--out", "results"]
    assert main(ask) == 0
    assert "calibrated" not in capsys.readouterr().out
    assert main([*ask, "--calibrated"]) == 0
    said = capsys.readouterr().out
    assert "calibrated" in said
    assert "predicted" in said
    names = sorted(path.name for path in (place / "results").glob("*.json"))
    assert [("calibrated" in name) for name in names].count(True) == 1
    found = [json.loads((place / "results" / name).read_text()) for name in names]
    assert {d["settings"].get("calibrated") for d in found} == {None, True}
    assert len({d["bits_per_dim"] for d in found}) == 2
    refused(["evaluate", "new.safetensors", "--codec", "--calibrated"], capsys, "--calibrated")


def test_an_error_of_an_earlier_version_gets_it_and_stays_as_it_is(place, capsys):
    model = tiny_model()
    model.measure(tiny_images(9))  # other images than those that it is measured on now
    model.learn_coding(tiny_images(9), steps=5)
    model = as_measured_before(model)
    model.save(checkpoint_path("run", 3))
    before = model.denoising_error
    assert (
        main(
            ["measure", "run", *BRIEFLY, "--data", "digits", "--images", "20", "--out", "other.st"]
        )
        == 0
    )
    assert "before there was a calibration" not in capsys.readouterr().out
    assert load("other.st", "cpu").denoising_error.images == 20
    model.config = replace(model.config, data=replace(model.config.data, path="digits"))
    model.history = replace(model.history, data="digits (train)")
    model.save(checkpoint_path("own", 3))
    assert main(["measure", "own", *BRIEFLY]) == 0
    said = capsys.readouterr().out
    assert "before there was a calibration" in said
    assert "the error stays as it is" in said
    assert "calibration of the predicted x_0: at t = " in said
    after = load("own", "cpu").denoising_error
    assert after.calibration is not None
    assert (after.calibration.slopes != 1).any()
    for name in ("timesteps", "xstart_mse", "decoder_bpd"):
        assert np.array_equal(getattr(after, name), getattr(before, name))
    assert load("own", "cpu").for_codec().fingerprint == model.for_codec().fingerprint
    assert main(["measure", "own", *BRIEFLY]) == 0  # a second time everything is measured
    assert "before there was" not in capsys.readouterr().out
    assert not np.array_equal(load("own", "cpu").denoising_error.xstart_mse, before.xstart_mse)


def test_a_figure_states_it(place):
    ask = ["figure", "samples", "new.safetensors", "--sampler", "ddim", "--steps", "3", "--n", "2"]
    assert main([*ask, "--out", "a.png"]) == 0
    assert main([*ask, "--no-calibrated", "--out", "b.png"]) == 0
    plans = [read_provenance(place / f"{name}.png").settings["plan"] for name in "ab"]
    assert [plan["calibrated"] for plan in plans] == [True, False]
    assert main([*ask[:2], "old.safetensors", *ask[3:], "--out", "c.png"]) == 0
    assert "calibrated" not in read_provenance(place / "c.png").settings["plan"]


@pytest.mark.parametrize("kind", ["diffusers", "safetensors"])
def test_an_export_says_that_it_stays_behind(place, capsys, kind):
    for name, said in (("new", True), ("old", False)):
        assert main(["export", f"{name}.safetensors", "--format", kind, "--out", f"{name}.x"]) == 0
        assert ("calibration" in capsys.readouterr().out) is said
        if kind == "diffusers":
            card = (place / f"{name}.x" / "README.md").read_text()
            assert ("calibration" in card) is said
