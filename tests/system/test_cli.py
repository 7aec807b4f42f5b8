"""Whole commands: what they make, and one sentence with exit code 2 for every mistake."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ddpm.cli import main
from ddpm.cli.reproduce_table2 import TABLE2
from ddpm.data.digits import digits
from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.evaluation import pixel_frechet_distance
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.model import Ddpm
from helpers import checkpoint_path, tiny_config, tiny_model

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.attn-resolutions", "4", "--diffusion.timesteps", "20"),
    *("--training.batch-size", "4", "--training.sample-every", "0"),
]

DIGITS = ImageFormat(1, 8, 8, 17)


@pytest.fixture
def run(tmp_path):
    """A run folder with one checkpoint."""
    tiny_model().save(checkpoint_path(tmp_path / "run", 3))
    return tmp_path / "run"


@pytest.mark.slow
def test_train_resume_info_and_sample(tmp_path, capsys):
    out = tmp_path / "r"
    command = ["train", "digits", *TINY, "--out", str(out), "--training.steps"]
    assert main([*command, "6"]) == 0
    assert main([*command, "9", "--resume"]) == 0
    assert "trained 9 steps" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["training"]["steps"] == 9
    assert main(["info", str(out)]) == 0
    assert "17" in capsys.readouterr().out
    png = tmp_path / "s.png"
    assert main(["sample", str(out), "-n", "9", "--out", str(png), "--progressive"]) == 0
    with Image.open(png) as picture:
        assert (picture.format, picture.size) == ("PNG", ((3 * 9 + 1) * 18,) * 2)
    assert (tmp_path / "s-progressive.png").is_file()
    few = ["--sampler", "ddim", "--steps", "5", "--eta", "0.5"]
    assert main(["sample", str(out), "-n", "3", "--out", str(tmp_path / "s.npz"), *few]) == 0
    assert np.load(tmp_path / "s.npz")["arr_0"].shape == (3, 8, 8, 1)
    assert main(["sample", str(out), "-n", "3", "--out", str(tmp_path / "s"), *few]) == 0
    assert len(list((tmp_path / "s").glob("*.png"))) == 3


def test_an_output_that_cannot_be_written_is_told_before_sampling(run, capsys, monkeypatch):
    monkeypatch.setattr(Ddpm, "sample", lambda *_, **__: pytest.fail("sampled in vain"))
    assert main(["sample", str(run), "--out", "/proc/no/x.png"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_evaluate_writes_the_terms_the_curve_and_the_plot(run, capsys, tmp_path):
    out = tmp_path / "e"
    assert main(["evaluate", str(run), "--bpd", "--images", "20", "--out", str(out)]) == 0
    assert "bits/dim on 20 images" in capsys.readouterr().out
    (path,) = out.glob("bpd-test-20-images-20-steps-*.json")
    document = json.loads(path.read_text())
    total = document["prior"] + sum(document["terms"])
    assert document["bits_per_dim"] == pytest.approx(total)
    assert len(document["per_image"]) == 20
    rows = path.with_suffix(".csv").read_text().splitlines()
    assert rows[0] == "reverse_step,rate,rmse,psnr"
    assert len(rows) == 22
    assert float(rows[-1].split(",")[1]) == pytest.approx(total)
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_measures_how_far_samples_are_from_the_images(run, capsys, tmp_path):
    command = ["evaluate", str(run), "--features", "pixels", "--samples", "10", "--steps", "3"]
    command += ["--sampler", "ddim", "--reference", "test", "--seed", "5"]
    assert main([*command, "--out", str(tmp_path / "e")]) == 0
    (path,) = (tmp_path / "e").glob("frechet_pixels_10-ddim-*.json")
    document = json.loads(path.read_text())
    counts = {"samples": 10, "calls": 3, "sampler": "ddim", "seed": 5}
    assert counts.items() <= document.items()
    assert document["reference"].items() >= {"count": 297, "split": "test"}.items()
    found = document["measures"]["frechet_pixels_10"]["value"]
    assert f"frechet_pixels_10 {found:.4g}" in capsys.readouterr().out
    samples = load(run).sample(10, sampler="ddim", plan=Plan(3), seed=5)
    expected = pixel_frechet_distance(samples, digits("test").images, DIGITS)
    assert found == pytest.approx(expected, rel=2e-3)  # grey levels are written in whole bytes


@pytest.mark.parametrize(
    ("preset", "count"), [("cifar10", "35,746,307"), ("lsun-church", "113,673,219")]
)
def test_dry_run_prints_everything_and_makes_nothing(preset, count, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", preset, "--dry-run", "--training.seed", "7"]) == 0
    text = capsys.readouterr().out
    assert f"{count} parameters" in text
    assert json.loads(text[: text.rindex("}") + 1])["training"]["seed"] == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_writes_one_self_contained_page(tmp_path, monkeypatch, capsys):
    import ddpm.cli.demo as demo

    monkeypatch.setattr(demo, "get_preset", lambda name: tiny_config(steps=4))
    arguments = ["demo", "--out", str(tmp_path), "--samples", "16"]
    assert main(arguments) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') >= 4
    assert page.count("src=") == page.count('src="data:')
    assert "http" not in page
    assert "<table>" in page
    assert main(arguments) == 0  # a finished run is shown again without training
    assert "report.html" in capsys.readouterr().out
    changed = tiny_config(steps=8, optimizer="muon")
    monkeypatch.setattr(demo, "get_preset", lambda name: changed)
    assert main(arguments) == 0  # also by a version with another preset, as it was trained
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def broken_folder(path):
    path.mkdir()
    for i in range(3):
        (path / f"{i}.png").write_bytes(b"not an image")
    return str(path)


def image_folder(path):
    path.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(path / f"{i}.png")
    return str(path)


def truncated(path):
    tiny_model().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    return str(path)


def foreign(path):
    save_file({"x": torch.zeros(1)}, path)
    return str(path)


def train(*options, preset="digits"):
    return ["train", preset, *TINY, "--training.steps", "2", *options]


MISTAKES = {
    "no such command": lambda p, r: ["tarin"],
    "no such preset": lambda p, r: ["train", "mnist"],
    "no preset": lambda p, r: ["train"],
    "no such option": lambda p, r: train("--training.momentum", "1"),
    "malformed value": lambda p, r: train("--training.lr", "fast"),
    "no such choice": lambda p, r: train("--training.loss", "l1"),
    "missing data": lambda p, r: train("--data", str(p / "none"), preset="cifar10"),
    "no data": lambda p, r: train(preset="cifar10"),
    "empty data": lambda p, r: train("--data", str(p), preset="cifar10"),
    "broken data": lambda p, r: train("--data", broken_folder(p / "b"), preset="cifar10"),
    "wrong size": lambda p, r: [
        *("train", "cifar10", "--data", image_folder(p / "i"), "--data.image-size", "30"),
    ],
    "T = 0": lambda p, r: train("--diffusion.timesteps", "0"),
    "batch 0": lambda p, r: train("--training.batch-size", "0"),
    "negative lr": lambda p, r: train("--training.lr", "-1"),
    "no such schedule": lambda p, r: train("--diffusion.schedule", "liner"),
    "resume nothing": lambda p, r: train("--out", str(p / "new"), "--resume"),
    "run exists": lambda p, r: train("--out", str(r)),
    "resume another model": lambda p, r: train("--out", str(r), "--resume", "--network.ch", "16"),
    "unwritable out": lambda p, r: train("--out", "/proc/run"),
    "missing run": lambda p, r: ["sample", str(p / "none")],
    "empty run": lambda p, r: ["sample", str(p)],
    "truncated checkpoint": lambda p, r: ["sample", truncated(p / "t.safetensors")],
    "foreign checkpoint": lambda p, r: ["info", foreign(p / "f.safetensors")],
    "no images": lambda p, r: ["sample", str(r), "-n", "0"],
    "too many steps": lambda p, r: ["sample", str(r), "--steps", "21"],
    "eta without ddim": lambda p, r: ["sample", str(r), "--eta", "1"],
    "out of another kind": lambda p, r: ["sample", str(r), "--out", "x.jpg"],
    "unwritable image": lambda p, r: ["sample", str(r), "-n", "1", "--out", "/proc/x.png"],
    "one sample": lambda p, r: ["evaluate", str(r), "--features", "pixels", "--samples", "1"],
    "nothing to measure": lambda p, r: ["evaluate", str(r)],
    "no held-out split": lambda p, r: [
        *("evaluate", str(r), "--bpd", "--data", image_folder(p / "i")),
    ],
    "other grey levels": lambda p, r: [
        *("evaluate", str(r), "--bpd", "--split", "train", "--data", image_folder(p / "i")),
    ],
    "K larger than T": lambda p, r: ["evaluate", str(r), "--bpd", "--steps", "21"],
    "no such trajectory": lambda p, r: [
        *("evaluate", str(r), "--bpd", "--steps", "3", "--trajectory", "best"),
    ],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(name, run, tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    empty = tmp_path / "input"
    empty.mkdir()
    arguments = MISTAKES[name](empty, run)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("ddpm: ")
    assert 25 < len(lines[0]) < 400
    assert "Traceback" not in captured.err + captured.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_module_runs_as_a_program_and_reports_mistakes(tmp_path):
    command = [sys.executable, "-m", "ddpm", "sample", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "does not exist" in done.stderr


@pytest.mark.slow
def test_reproduce_trains_measures_and_tells_every_variant(tmp_path, capsys):
    options = ["--steps", "1", "--samples", "16", "--images", "1", "--out", str(tmp_path)]
    first = [TABLE2[0], TABLE2[7], TABLE2[-1]]
    with (
        mock.patch("ddpm.cli.reproduce_table2.TABLE2", first),
        mock.patch("ddpm.cli.reproduce_table2.get_preset", return_value=tiny_config()),
    ):
        assert main(["reproduce", "table2", *options]) == 0
        assert main(["reproduce", "table2", *options]) == 0, "runs that are there serve again"
    rows = json.loads((tmp_path / "table2.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == [variant.name for variant in first]
    assert all(row["bits_per_dim"] > 0 for row in rows)
    assert "7.28 / 23.69" in capsys.readouterr().out
    assert main(["reproduce", "table9"]) == 2
    assert "choose from table1, table2" in capsys.readouterr().err


def test_the_rows_of_table_2_can_all_be_built():
    for variant in TABLE2:
        GaussianDiffusion(make_schedule("linear"), variant.prediction, variant.variance)
