"""Disks that are really full or really read-only: small file systems in memory, where allowed."""

import subprocess

import pytest

from ddpm.cli import main
from ddpm.runs.checkpoint import load_checkpoint
from ddpm.runtime.atomic import free_bytes
from ddpm.training import loop
from helpers import checkpoint_path, checkpoints
from system.test_damage import TINY, mistake


@pytest.fixture
def mounted(tmp_path):
    """Mounts a disk of so many bytes at a new folder; `remount` changes its options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode != 0:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def training(out, steps, *options):
    """The arguments of a small run."""
    steps = ("--training.steps", str(steps))
    return [str(a) for a in ("train", "digits", *TINY, *steps, "--out", out, *options)]


def filled_at(monkeypatch, step, path, left):
    """Have something else fill the disk, but for `left` bytes, once the run took `step` steps."""
    real = loop.TrainingStep.__call__

    def call(self, images):
        loss = real(self, images)
        if self.state.step == step:
            path.write_bytes(bytes(free_bytes(path) - left))
        return loss

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)


# Room for nothing, for less than the log wants, and for the log but not for a checkpoint of 2.6 MB.
@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 100_000, 2_000_000])
def test_a_disk_that_fills_up_leaves_the_older_checkpoint_and_one_sentence(
    mounted, monkeypatch, capfd, left
):
    disk = mounted("size=32m")
    options = ["--training.save-every", "4", "--training.log-every", "1", "--network.ch", "32"]
    filled_at(monkeypatch, 6, disk / "others", left)
    line = mistake(training(disk / "run", 12, *options), capfd)
    assert "free some space" in line
    assert "are free)" in line
    assert checkpoints(disk / "run") == [checkpoint_path(disk / "run", 4)]
    load_checkpoint(checkpoint_path(disk / "run", 4))
    assert not list(disk.rglob("*.partial"))
    (disk / "others").unlink()
    monkeypatch.undo()
    assert main(training(disk / "run", 12, *options, "--resume")) == 0


def test_a_disk_too_small_for_one_checkpoint_is_told_before_training(mounted, monkeypatch, capfd):
    disk = mounted("size=128k")
    begun = []
    monkeypatch.setattr(loop.TrainingStep, "__call__", lambda self, images: begun.append(1))
    line = mistake(training(disk / "run", 4), capfd)
    assert "it needs 0." in line
    assert not begun


@pytest.mark.parametrize("resume", [False, True])
def test_a_read_only_folder_is_told_before_training(mounted, monkeypatch, capfd, resume):
    disk = mounted("size=8m")
    if resume:
        assert main(training(disk / "run", 2)) == 0
    mounted("remount,ro,size=8m")
    capfd.readouterr()
    begun = []
    monkeypatch.setattr(loop.TrainingStep, "__call__", lambda self, images: begun.append(1))
    line = mistake(training(disk / "run", 4, *(["--resume"] if resume else [])), capfd)
    assert "Read-only file system" in line
    assert not begun
