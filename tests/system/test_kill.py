"""SIGKILL at any moment: a run that is resumed each time ends as if nothing had happened.

`DDPM_KILLS` sets how many times the run is killed; 20 take some minutes.
"""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from PIL import Image

from ddpm.runs.checkpoint import load_checkpoint
from helpers import checkpoint_path, checkpoints, stats_of, tiny_images

KILLS = int(os.environ.get("DDPM_KILLS", "2"))
SAVE_EVERY = 5
TRAIN = [
    *("train", "digits", "--network.ch", "16", "--network.ch-mult", "1", "2"),
    *("--network.norm-groups", "4", "--network.num-res-blocks", "1"),
    *("--network.attn-resolutions", "4", "--network.dropout", "0.1", "--data.flip"),
    *("--diffusion.timesteps", "20", "--training.batch-size", "8"),
    *("--training.sample-every", "0", "--training.log-every", "1"),
    *("--training.save-every", str(SAVE_EVERY)),
]
PAPER = ["--training.optimizer", "adam", "--training.no-stratified-time"]
OTHER = [  # what the small presets have and the paper has not
    *("--training.optimizer", "muon", "--training.stratified-time"),
    *("--training.time-sampling", "both", "--network.switch", "5"),
    *("--diffusion.prediction-type", "v_prediction"),
]
ONE = [sys.executable, "-m", "ddpm"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TWO += ["-m", "ddpm"]

pytestmark = pytest.mark.slow


@pytest.fixture
def processes():
    """What a test has started; nothing of it outlives the test."""
    started = []
    yield started
    for process in started:
        if process.poll() is None:
            kill(family(process), process)


@pytest.fixture
def start(processes):
    """Starts `ddpm train` as processes of its own."""

    def begin(command, out, steps, *options):
        everything = [*command, *TRAIN, "--training.steps", str(steps), "--out", str(out), *options]
        process = subprocess.Popen(
            everything,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    return begin


def finish(process):
    """Wait for the end, which must be a good one; what was said on the way."""
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def family(process):
    """The process and all that it started."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def kill(members, process):
    """SIGKILL to all of them, and wait until they are gone."""
    for member in members:
        member.kill()
    psutil.wait_procs(members[1:])
    process.communicate()


def last_step(run):
    """The last step in the log."""
    lines = stats_of(run)
    return lines[-1]["step"] if lines else 0


def half_written(run):
    """Checkpoints that are being written at this moment."""
    folder = run / "checkpoints"
    return [n for n in os.listdir(folder) if n.endswith(".partial")] if folder.is_dir() else []


def wait_for(moment, process):
    """Come back when `moment()` is true; the process must not end before."""
    while not moment():
        assert process.poll() is None, process.communicate()[1] or "it ended too early"
        time.sleep(0.0005)


def one_kill(process, run, rng, while_saving):
    """SIGKILL at a random moment of the next steps, or while a checkpoint is being written."""
    step = last_step(run) + rng.randint(2 * SAVE_EVERY + 1, 4 * SAVE_EVERY)
    wait_for(lambda: last_step(run) >= step, process)
    members = family(process)
    while while_saving:
        wait_for(lambda: half_written(run), process)
        for member in members:
            member.suspend()
        time.sleep(0.01)
        if half_written(run):
            break
        for member in members:  # it was faster: the next one, then
            member.resume()
    else:
        time.sleep(rng.random() * 0.02)
    kill(members, process)
    assert process.returncode == -signal.SIGKILL


def killed_and_resumed(start, command, run, steps, kills, options=(), seed=0):
    """Train with `kills` kills and one damaged checkpoint; how many kills hit a checkpoint."""
    rng, hits, saved, good = random.Random(seed), 0, 0, 0
    for number in range(kills):
        resume = ["--resume"] if checkpoints(run) else []
        process = start(command, run, steps, *options, *resume)
        one_kill(process, run, rng, while_saving=number % 2 == 0)
        hits += bool(half_written(run))
        logged, found = last_step(run), checkpoints(run)
        good = int(found[-1].stem[5:]) if found else 0
        for path in found:
            load_checkpoint(path, training=True)  # whole, all of them
        assert saved <= good <= logged
        assert logged - good <= SAVE_EVERY
        print(f"kill {number + 1}: step {logged}, resumed from {good}, half-written {hits}")
        saved = good
    older, newest = checkpoints(run)
    newest.write_bytes(newest.read_bytes()[:-1000])
    said = finish(start(command, run, steps, *options, "--resume"))
    assert said.count(f"{older} is used instead") == 1  # by all processes together
    assert not list(run.rglob("*.partial"))
    return hits


def assert_same_end(a, b, steps, more=()):
    """The same bits: weights, averages and all that the optimisers keep."""
    (one, described), (two, other) = (
        load_checkpoint(checkpoint_path(run, steps), training=True) for run in (a, b)
    )
    parts = {
        "network",
        "ema",
        "exp_avg",
        "exp_avg_sq",
        "diffusion",
        "denoising_error",
        "codec",
        *more,
    }
    assert {name.split(".")[0] for name in one} == parts
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    assert (described["config"], described["images"]) == (other["config"], other["images"])
    losses = [[(line["step"], line["loss"]) for line in stats_of(run)] for run in (a, b)]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, steps + 1))


@pytest.mark.parametrize("recipe", ["paper", "small presets"])
@pytest.mark.parametrize(
    ("command", "kills"), [(ONE, KILLS), (TWO, 1)], ids=["one process", "two processes"]
)
def test_a_run_killed_and_resumed_ends_as_the_one_that_was_not(
    start, tmp_path, command, kills, recipe
):
    options, more = (OTHER, ["momentum"]) if recipe == "small presets" else (PAPER, [])
    steps = 5 * SAVE_EVERY * (kills + 1)
    whole = start(command, tmp_path / "whole", steps, *options)
    hits = killed_and_resumed(start, command, tmp_path / "killed", steps, kills, options)
    finish(whole)
    assert hits >= (kills + 1) // 2  # every second kill fell into the writing of a checkpoint
    assert_same_end(tmp_path / "whole", tmp_path / "killed", steps, more)


def test_the_signals_of_schedulers_and_keyboards_end_with_128_and_their_number(
    start, processes, tmp_path
):
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        start(ONE, tmp_path / number.name, 5_000)
    for number, process in zip(numbers, processes, strict=True):
        run = tmp_path / number.name
        wait_for(lambda run=run: last_step(run) >= 3, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number, errors
        assert int(checkpoints(run)[-1].stem[5:]) == last_step(run)


STREAMED = """
import sys
from pathlib import Path
from ddpm.data.folder import image_folder
from ddpm.training import train
from helpers import tiny_config
images = image_folder(Path(sys.argv[1]), 8, 1, memory_limit=0)
result = train(tiny_config(steps=5000, log_every=1), images, Path(sys.argv[2]))
print(result.stopped, result.step)
"""


def test_a_signal_to_workers_too_saves_the_run(processes, tmp_path):
    # As schedulers send it: to every process of the job, those that decode images among them.
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(tiny_images(6, 256).images):
        Image.fromarray(pixels[0].numpy()).save(folder / f"{i}.png")
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        process = subprocess.Popen(
            [sys.executable, "-c", STREAMED, str(folder), str(tmp_path / number.name)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
    for number, process in zip(numbers, processes, strict=True):
        run = tmp_path / number.name
        wait_for(lambda run=run: last_step(run) >= 3, process)
        assert len(family(process)) > 1
        os.killpg(process.pid, number)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert out.splitlines()[-1] == f"{number.name} {last_step(run)}"
        assert checkpoints(run)[-1] == checkpoint_path(run, last_step(run))
