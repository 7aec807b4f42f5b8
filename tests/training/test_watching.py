"""Watching a run: `ddpm watch`, `ddpm plot`, Weights & Biases, the rate in the progress bar."""

import io
import json
import os
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ddpm.cli import main
from ddpm.cli.progress import bars, follow
from ddpm.cli.watch import sparkline
from ddpm.errors import DdpmError
from ddpm.figures.curves import run_curves
from ddpm.runs.folder import RunFolder
from ddpm.runs.status import run_status
from ddpm.training import train
from helpers import checkpoint_path, stats_of, tiny_config, tiny_images, with_training
from system.test_damage import mistake


@pytest.fixture
def half_way(tmp_path):
    """A run of 100 steps that has been at it for 40, written by hand."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(tiny_config(steps=100, batch_size=8).to_dict()))
    lines = [
        {"step": s, "loss": 1.0 / s, "images_per_second": 16.0, "lr": 1e-3, "mfu": 0.4}
        for s in range(1, 41)
    ]
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, age in ((20, 9000), (30, 3723)):
        checkpoint_path(run, step).write_text("x")
        os.utime(checkpoint_path(run, step), (time.time() - age,) * 2)
    return run


# -- status --------------------------------------------------------------------------------------


def test_the_status_is_what_the_folder_says(half_way):
    status = run_status(RunFolder(half_way))
    assert (status.step, status.steps, status.complete) == (40, 100, False)
    assert status.loss == 1 / 40
    assert status.smoothed_loss == pytest.approx(np.mean(1 / np.arange(21, 41)))
    assert status.seconds_left == 60 * 8 / 16
    assert status.checkpoint == checkpoint_path(half_way, 30)
    assert status.checkpoint_age == pytest.approx(3723, abs=60)


def test_lines_with_other_keys_and_lines_spoilt_by_a_crash_are_no_trouble(half_way):
    with (half_way / "stats.jsonl").open("ab") as file:
        file.write(b'{"step": 41, "bits_per_dim": 3.7}\n\x00\x00\xff\n')
        file.write(b'[1]\n{"loss": 3}\n{"step": 42, "lo')
    assert run_status(RunFolder(half_way)).step == 41
    assert run_status(RunFolder(half_way)).loss == 1 / 40
    assert main(["plot", str(half_way)]) == 0
    assert main(["watch", str(half_way), "--once"]) == 0


def test_a_run_that_has_only_begun_has_a_status(half_way, capsys):
    (half_way / "stats.jsonl").unlink()
    for path in (half_way / "checkpoints").iterdir():
        path.unlink()
    status = run_status(RunFolder(half_way))
    assert (status.step, status.loss, status.seconds_left, status.checkpoint) == (0,) + (None,) * 3
    assert main(["watch", str(half_way), "--once"]) == 0
    assert "none yet" in capsys.readouterr().out


def test_a_sparkline_follows_the_logarithm():
    assert sparkline([1, 10, 100]) == "▁▅█"
    assert sparkline([100, 10, 1]) == "█▅▁"
    assert sparkline([3.0] * 5) == "▁" * 5
    assert sparkline([]) == sparkline([0.0, float("nan")]) == ""
    falling = sparkline([2.0**-i for i in range(1000)], width=8)
    assert falling == "█▇▆▅▄▃▂▁"


# -- watch ---------------------------------------------------------------------------------------


def test_watch_once_prints_one_frame(half_way, capsys):
    assert main(["watch", str(half_way), "--once"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "40 of 100 (40.0%)",
        "0.0250, smoothed 0.0340",
        "16 images/s",
        "0:00:30",
        "step-00000030.safetensors, 1:02:0",
    ):
        assert words in shown
    assert "▁" in shown


def test_watch_ends_by_itself_when_the_run_is_complete(half_way, monkeypatch, capsys):
    monkeypatch.setattr("ddpm.cli.watch.REFRESH_SECONDS", 0.02)
    timer = threading.Timer(0.2, lambda: checkpoint_path(half_way, 100).write_text("x"))
    timer.start()
    begun = time.monotonic()
    assert main(["watch", str(half_way)]) == 0
    assert time.monotonic() - begun >= 0.15
    assert "complete" in capsys.readouterr().out


def test_leaving_the_watch_is_no_error(half_way, monkeypatch):
    def ctrl_c(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", ctrl_c)
    assert main(["watch", str(half_way)]) == 0


@pytest.mark.parametrize("command", ["watch", "plot"])
@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_what_is_no_run_is_one_sentence(tmp_path, command, what, capsys):
    (tmp_path / "empty").mkdir()
    assert "is not the folder of a training run" in mistake([command, tmp_path / what], capsys)
    assert f"ddpm {command}" in mistake([command], capsys)


def test_a_damaged_configuration_is_one_sentence(half_way, capsys):
    for text in ("{", "[]", '{"training": {}}'):
        (half_way / "config.json").write_text(text)
        assert "config.json is damaged" in mistake(["watch", half_way], capsys)


# -- plot ----------------------------------------------------------------------------------------


def test_plot_draws_the_curves_of_a_run(half_way, tmp_path, capsys):
    assert main(["plot", str(half_way)]) == 0
    assert str(half_way / "curves.png") in capsys.readouterr().out
    with Image.open(half_way / "curves.png") as picture:
        assert picture.format == "PNG"
    assert main(["plot", str(half_way), "--out", str(tmp_path / "other.png")]) == 0
    assert (tmp_path / "other.png").read_bytes() == (half_way / "curves.png").read_bytes()


@pytest.mark.slow
def test_every_panel_shows_its_curve(half_way):
    lines = stats_of(half_way)
    whole = np.asarray(run_curves(lines))
    quarter = whole.shape[0] // 4
    below = {"lr": slice(2 * quarter, 3 * quarter), "images_per_second": slice(-quarter, None)}
    for key, rows in below.items():
        less = [{k: v for k, v in line.items() if k != key} for line in lines]
        assert (np.asarray(run_curves(less))[rows] != whole[rows]).any()
    with pytest.raises(DdpmError, match="no loss"):
        run_curves([{"step": 1, "lr": 1e-3}])


# -- Weights & Biases ----------------------------------------------------------------------------


class FakeWandb(types.ModuleType):
    """Records what it is asked."""

    Error = type("Error", (Exception,), {})

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.points, self.axes, self.finished = [], [], [], 0

    def init(self, **options):
        self.begun.append(options)
        return self

    def define_metric(self, name, step_metric):
        self.axes.append((name, step_metric))

    def log(self, data):
        self.points.append(data)

    def finish(self):
        self.finished += 1


def test_wandb_gets_what_stats_get_and_the_same_run_when_resumed(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = tiny_config(steps=10, wandb_project="digits")
    train(config, tiny_images(), tmp_path)
    assert fake.points == stats_of(tmp_path)
    assert [point["step"] for point in fake.points] == [5, 10]
    train(with_training(config, steps=15), tiny_images(), tmp_path, resume=True)
    assert [point["step"] for point in fake.points] == [5, 10, 15]
    first, second = fake.begun
    assert (first["project"], first["name"]) == ("digits", tmp_path.name)
    assert first["config"]["training"]["lr"] == 1e-3
    assert first["id"] == second["id"]
    assert fake.axes == [("*", "step")] * 2
    assert fake.finished == 2


@pytest.mark.parametrize("installed", [False, True])
def test_wandb_that_is_missing_or_refuses_is_told_before_training(tmp_path, monkeypatch, installed):
    fake = FakeWandb()

    def refuse(**options):
        raise fake.Error("no API key")

    fake.init = refuse
    monkeypatch.setitem(sys.modules, "wandb", fake if installed else None)
    with pytest.raises(DdpmError, match="no API key" if installed else "pip install wandb"):
        train(tiny_config(wandb_project="digits"), tiny_images(), tmp_path)
    assert not (tmp_path / "stats.jsonl").exists()


def test_without_the_option_wandb_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    train(tiny_config(steps=1), tiny_images(), tmp_path)


# -- the progress bar ----------------------------------------------------------------------------


def test_the_bar_shows_rate_and_remaining_time():
    now = 0.0
    drawn = bars()
    drawn.get_time = lambda: now
    progress = follow(drawn)
    for step in range(40, 51):
        progress(step, 100, f"training: loss {1 / step:.4f}")
        now += 0.5
    console = Console(file=io.StringIO(), width=80)
    console.print(drawn.get_renderable())
    (line,) = console.file.getvalue().splitlines()
    assert "50/100  2.0 steps/s  loss 0.0200  0:00:25 left" in line


def test_what_begins_anew_gets_a_new_bar_and_what_is_done_keeps_its_own():
    drawn = bars()
    progress = follow(drawn)
    for done in (0, 5, 10):
        progress(done, 10, "sampling")
    for done in (0, 3):
        progress(done, 6, "bits/dim")
    progress(0, 20, "sampling")
    shown = {task.description: (task.completed, task.total) for task in drawn.tasks}
    assert shown == {"sampling": (0, 20), "bits/dim": (3, 6)}
