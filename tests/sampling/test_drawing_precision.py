"""Pictures in the faster precision: which one is written down, kept to, and told."""

import json

import numpy as np
import pytest
import torch

from ddpm.cli import main
from ddpm.cli.sample import set_precision
from ddpm.loading import load
from ddpm.runtime import probe
from false_stopwatch import says
from helpers import checkpoint_path, tiny_model
from mistakes import everything_below, refused


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of grey 8x8 images with T = 20, in the current folder."""
    monkeypatch.chdir(tmp_path)
    tiny_model().save(checkpoint_path(tmp_path / "run", 3))
    return "run"


def sample(out, *options, n=6):
    """`ddpm sample` of six images, two at a time."""
    words = ["sample", "run", "-n", n, "--batch-size", 2, "--steps", 5, "--out", out, *options]
    return main([str(word) for word in words])


def written(folder):
    """What a set says of its making."""
    return json.loads((folder / "samples.json").read_text())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_are_drawn_in_the_precision_that_the_stopwatch_is_in_favour_of(
    tmp_path, monkeypatch, precision
):
    watch = says(monkeypatch, tmp_path, precision)
    drawn = tiny_model().sample(3, steps=4)
    assert watch.asked == 1
    assert torch.equal(drawn, tiny_model(precision=precision).sample(3, steps=4))
    other = "fp32" if precision == "bf16" else "bf16"
    assert not torch.equal(drawn, tiny_model(precision=other).sample(3, steps=4))
    assert watch.asked == 1


def test_the_denoiser_itself_is_exact(tmp_path, monkeypatch):
    watch = says(monkeypatch, tmp_path, "bf16")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    model, exact = tiny_model(), tiny_model(precision="fp32")
    assert torch.equal(model.denoiser()(x, t), exact.denoiser()(x, t))
    assert torch.equal(model.epsilon(x, t), exact.epsilon(x, t))
    assert watch.asked == 0
    assert not torch.equal(model.denoiser("bf16")(x, t), exact.denoiser()(x, t))


@pytest.mark.parametrize(("first", "second"), [("bf16", "fp32"), ("fp32", "bf16")])
@pytest.mark.parametrize("options", [(), ("--precision", "auto")])
def test_a_set_goes_on_in_the_precision_that_it_was_begun_in(
    run, tmp_path, monkeypatch, capsys, first, second, options
):
    says(monkeypatch, tmp_path / "a", first)
    assert sample("half", n=4) == 0
    assert written(tmp_path / "half")["precision"] == first
    watch = says(monkeypatch, tmp_path / "b", second)
    assert sample("half", *options) == 0
    assert watch.asked == 0
    assert sample("whole", "--precision", first) == 0
    half, whole = (everything_below(tmp_path / name).values() for name in ("half", "whole"))
    assert list(half) == list(whole)
    refused(
        ["sample", "run", "-n", 6, "--steps", 5, "--out", "half", "--precision", second],
        capsys,
        "precision",
    )


def test_a_set_that_another_process_begins_meanwhile_decides(run, tmp_path, monkeypatch):
    """As another machine may, for which fp32 is faster."""
    says(monkeypatch, tmp_path / "cache", "bf16")
    slow = probe.time_both

    def meanwhile(*args):
        assert sample("set", "--precision", "fp32", n=2) == 0
        return slow(*args)

    monkeypatch.setattr(probe, "time_both", meanwhile)
    assert sample("set") == 0
    assert written(tmp_path / "set")["precision"] == "fp32"
    assert len(list((tmp_path / "set").glob("*.png"))) == 6


def test_an_npz_and_a_grid_say_what_they_were_drawn_in(run, tmp_path, monkeypatch, capsys):
    says(monkeypatch, tmp_path / "cache", "bf16")
    assert sample("set.npz") == 0
    assert sample("grid.png") == 0
    with np.load("set.npz") as file:
        assert json.loads(str(file["provenance"]))["settings"]["precision"] == "bf16"
    capsys.readouterr()
    assert main(["info", "grid.png"]) == 0
    assert "--precision bf16" in " ".join(capsys.readouterr().out.split())


def test_what_is_asked_for_is_taken(run, tmp_path, monkeypatch):
    watch = says(monkeypatch, tmp_path / "cache", "bf16")
    model = load("run", "cpu")
    assert set_precision(model, "fp32", tmp_path / "none") == "fp32"
    assert watch.asked == 0
    for asked in (None, "auto"):
        assert set_precision(model, asked, tmp_path / "none") == "bf16"


def evaluate(*options):
    """The result of a distance of eight samples."""
    words = ["evaluate", "run", "--features", "pixels", "--samples", 8, "--steps", 4]
    words += ["--data", "digits", "--out", "results", *options]
    assert main([str(word) for word in words]) == 0


def test_a_distance_states_the_precision_of_its_samples(run, tmp_path, monkeypatch, capsys):
    says(monkeypatch, tmp_path / "a", "bf16")
    evaluate()
    said = capsys.readouterr().out
    assert "samples drawn in bf16" in " ".join(said.split())
    (result,) = (tmp_path / "results").glob("frechet*.json")
    assert json.loads(result.read_text())["precision"] == "bf16"
    (folder,) = map(str, (tmp_path / "results").glob("samples-*"))
    words = ["evaluate", folder, "--features", "pixels", "--reference", folder, "--out", "again"]
    assert main(words) == 0
    assert "samples drawn in bf16" in " ".join(capsys.readouterr().out.split())
    (result,) = (tmp_path / "again").glob("frechet*.json")
    assert json.loads(result.read_text())["precision"] == "bf16"


def test_a_distance_goes_on_with_the_samples_that_were_begun(run, tmp_path, monkeypatch):
    says(monkeypatch, tmp_path / "a", "bf16")
    evaluate()
    (folder,) = (tmp_path / "results").glob("samples-*")
    watch = says(monkeypatch, tmp_path / "b", "fp32")
    evaluate("--samples", 12)
    assert watch.asked == 0
    assert len(list(folder.glob("*.png"))) == 12
    evaluate("--precision", "fp32")  # as is asked for
    assert len(list((tmp_path / "results").glob("samples-*"))) == 2
    evaluate()  # of two, the faster one
    assert watch.asked == 1
