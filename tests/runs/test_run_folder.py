"""How a run keeps its work: good checkpoints, room on the disk, leftovers, what may change."""

import logging
import os
import shutil
import subprocess
from collections import namedtuple

import pytest
import torch

from ddpm.data.images import ImageFormat
from ddpm.errors import Damaged, DdpmError
from ddpm.loading import load
from ddpm.runs.checkpoint import HEADER, load_checkpoint
from ddpm.runs.folder import KEEP, RunFolder, load_newest
from ddpm.runtime.atomic import check_free_space, free_bytes
from ddpm.training import train
from ddpm.training.state import TrainingState
from helpers import checkpoint_path, checkpoints, tensors_of, tiny_config, tiny_images, tiny_model
from training.test_loop import assert_identical


def damage(path):
    """Turn one bit of a tensor."""
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def notices(caplog):
    """What was said, on one line each."""
    return [record.getMessage() for record in caplog.records]


# -- the newest good checkpoint ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ruin", [damage, lambda path: path.write_bytes(b"")])
def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(tmp_path, ruin, caplog):
    config, images = tiny_config(), tiny_images()
    whole = train(config, images, tmp_path / "whole")
    broken = train(config, images, tmp_path / "broken")
    ruin(broken.checkpoint)
    again = train(config, images, tmp_path / "broken", resume=True)
    (notice,) = notices(caplog)
    before = checkpoint_path(tmp_path / "broken", 10)
    assert str(broken.checkpoint) in notice
    assert f"{before} is used instead" in notice
    assert_identical(tensors_of(again), tensors_of(whole))


def test_a_model_of_a_run_is_the_newest_good_one_and_says_so(tmp_path, caplog):
    for step in (5, 10, 15):
        tiny_model(seed=step).save(checkpoint_path(tmp_path, step))
    damage(checkpoint_path(tmp_path, 10))
    assert torch.equal(load(tmp_path).sample(1), tiny_model(seed=15).sample(1))
    assert notices(caplog) == []
    damage(checkpoint_path(tmp_path, 15))
    assert torch.equal(load(tmp_path).sample(1), tiny_model(seed=5).sample(1))
    assert [f"{step:08d}" in notice for step, notice in zip((15, 10), notices(caplog), strict=True)]
    with pytest.raises(Damaged, match="checksum"):
        load(checkpoint_path(tmp_path, 15))  # named, so nothing else will do
    damage(checkpoint_path(tmp_path, 5))
    with pytest.raises(Damaged, match="step-00000015"):
        load(tmp_path)


def test_a_checkpoint_of_a_newer_version_is_not_passed_over(tmp_path, monkeypatch):
    tiny_model().save(checkpoint_path(tmp_path, 5))
    monkeypatch.setattr("ddpm.runs.checkpoint.FORMAT", 99)
    tiny_model().save(checkpoint_path(tmp_path, 10))
    monkeypatch.undo()
    with pytest.raises(DdpmError, match="format 99"):
        load_newest(tmp_path)


def test_rotation_never_removes_the_last_good_one(tmp_path):
    # The two newest are damaged; the run goes on from 10 and saves at 12.
    for step in (10, 20, 30):
        tiny_model().save(checkpoint_path(tmp_path, step))
    damage(checkpoint_path(tmp_path, 20))
    damage(checkpoint_path(tmp_path, 30))
    tiny_model().save(checkpoint_path(tmp_path, 12))
    RunFolder(tmp_path).rotate(checkpoint_path(tmp_path, 12))
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, s) for s in (10, 12)]
    for path in checkpoints(tmp_path):
        load_checkpoint(path)


# -- leftovers -----------------------------------------------------------------------------------


def test_leftovers_of_dead_processes_are_removed_and_those_of_live_ones_are_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "checkpoints").mkdir()
    names = {
        process: tmp_path / "checkpoints" / f".step-1.safetensors.{process}.partial"
        for process in (dead.pid, os.getpid(), os.getppid())
    }
    for path in (*names.values(), tmp_path / "mine.partial", tmp_path / ".a.b.partial"):
        path.write_text("x")
    RunFolder(tmp_path).clear_partial_files()
    left = {path.name for path in tmp_path.rglob("*.partial")}
    assert left == {names[os.getppid()].name, "mine.partial", ".a.b.partial"}


def test_a_run_begins_by_clearing_its_leftovers(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    leftover = checkpoint_path(tmp_path, 7).with_name(f".x.safetensors.{dead.pid}.partial")
    leftover.parent.mkdir()
    leftover.write_text("half")
    train(tiny_config(steps=1), tiny_images(), tmp_path)
    assert not leftover.exists()


# -- time, pictures that break -------------------------------------------------------------------


@pytest.mark.slow
def test_the_time_of_a_run_is_not_rounded_at_each_stop(tmp_path):
    result = train(tiny_config(steps=2), tiny_images(), tmp_path)
    stored = load_checkpoint(result.checkpoint)[1]["history"]["seconds"]
    assert stored == result.seconds
    total = stored
    for steps in (4, 6):
        again = train(tiny_config(steps=steps), tiny_images(), tmp_path, resume=True)
        assert again.seconds > total
        total = again.seconds


def test_what_was_learned_is_saved_when_an_image_cannot_be_read(tmp_path):
    class Breaking(type(tiny_images())):
        def __getitem__(self, indices):
            Breaking.reads += 1
            if Breaking.reads == 9:
                raise DdpmError("cannot read x.png")
            return super().__getitem__(indices)

        def to(self, device):
            return self

    Breaking.reads = 0
    images = tiny_images()
    with pytest.raises(DdpmError, match=r"x\.png"):
        train(tiny_config(), Breaking(images.images, 17, "noise"), tmp_path / "parts")
    assert checkpoints(tmp_path / "parts") == [checkpoint_path(tmp_path / "parts", 7)]
    rest = train(tiny_config(), images, tmp_path / "parts", resume=True)
    whole = train(tiny_config(), images, tmp_path / "whole")
    assert_identical(tensors_of(rest), tensors_of(whole))


# -- what may change when a run is resumed -------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "training.seed 0"),
        ({"batch_size": 5}, "training.batch_size 4"),
        ({"loss": "vlb"}, "training.loss simple"),
        ({"flip": True}, "data.flip False"),
    ],
)
def test_resuming_as_another_run_is_refused(tmp_path, change, name):
    result = train(tiny_config(steps=2), tiny_images(), tmp_path)
    before = result.checkpoint.read_bytes()
    with pytest.raises(DdpmError, match=f"{name}.*another run"):
        train(tiny_config(steps=4, **change), tiny_images(), tmp_path, resume=True)
    assert result.checkpoint.read_bytes() == before


def test_images_are_known_by_their_content_and_not_by_their_name(tmp_path):
    train(tiny_config(steps=2), tiny_images(), tmp_path)
    renamed = type(tiny_images())(tiny_images().images, 17, "other")
    train(tiny_config(steps=3), renamed, tmp_path, resume=True)
    fewer = type(tiny_images())(tiny_images().images[:9], 17, "noise")
    for images in (fewer, tiny_images(seed=2)):
        with pytest.raises(DdpmError, match=r"was trained on 10 images .* --other-images"):
            train(tiny_config(steps=4), images, tmp_path, resume=True)
    assert train(tiny_config(steps=4), fewer, tmp_path, resume=True, other_images=True).step == 4


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"lr": 5e-4}, ["training.lr"]),
        ({"warmup": 6, "ema_decay": 0.5}, ["training.warmup", "training.ema_decay"]),
        ({"lr_decay": "cosine"}, ["training.steps", "training.lr_decay"]),
        ({"save_every": 3, "log_every": 1, "sample_every": 4, "max_minutes": 9}, []),
    ],
)
def test_what_changes_the_outcome_is_told_and_the_rest_is_not(tmp_path, change, names, caplog):
    train(tiny_config(steps=2), tiny_images(), tmp_path)
    train(tiny_config(steps=4, **change), tiny_images(), tmp_path, resume=True)
    assert sorted(notice.split()[0] for notice in notices(caplog)) == sorted(names)


# -- room on the disk ----------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def with_free(monkeypatch, free):
    """Have the disk say that so many bytes are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))


def test_room_is_looked_up_where_the_file_would_be(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, 0.1)
    check_free_space(tmp_path / "a" / "b", 10)
    with pytest.raises(DdpmError, match=r"it needs 9,000,000\.0 GB and .* are free"):
        check_free_space(tmp_path / "a" / "b", 9 * 10**15)


def test_a_disk_that_will_not_last_is_told_at_the_start(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    size = train(tiny_config(steps=1), tiny_images(), tmp_path / "a").checkpoint.stat().st_size
    with_free(monkeypatch, KEEP * size + (2 << 20))
    train(tiny_config(steps=1), tiny_images(), tmp_path / "b")
    assert notices(caplog) == []  # the model is small beside the 2 MB that the log wants
    monkeypatch.setattr("ddpm.training.state.TrainingState.nbytes", 1 << 20)
    train(tiny_config(steps=1), tiny_images(), tmp_path / "c")
    (notice,) = notices(caplog)
    assert "checkpoints still need 3.1 MB" in notice
    monkeypatch.setattr("ddpm.training.state.TrainingState.nbytes", 1 << 30)
    with pytest.raises(DdpmError, match=r"it needs 1\.1 GB"):
        train(tiny_config(steps=1), tiny_images(), tmp_path / "d")
    assert not (tmp_path / "d" / "stats.jsonl").exists()


def test_the_size_of_a_checkpoint_is_known_before_it_is_written(tmp_path):
    config = tiny_config(steps=1)
    state = TrainingState(config, ImageFormat(1, 8, 8, 17), torch.device("cpu"))
    written = train(config, tiny_images(), tmp_path).checkpoint
    header = written.stat().st_size - state.nbytes
    assert 0 < header < HEADER * len(tensors_of(written))
