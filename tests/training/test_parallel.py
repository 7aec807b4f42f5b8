"""One, two and four processes do the same, stop together and err together."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm.cli import main
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.runs.checkpoint import load_checkpoint
from ddpm.runtime import parallel
from ddpm.training import train
from ddpm.training.state import TrainingState
from helpers import checkpoint_path, checkpoints, stats_of, tiny_config, tiny_images, with_training
from training import together

TINY = [
    *("--network.ch", "8", "--network.ch-mult", "1", "--network.norm-groups", "4"),
    *("--network.attn-resolutions", "4", "--diffusion.timesteps", "20"),
    *("--training.sample-every", "0", "--training.log-every", "1"),
]

pytestmark = pytest.mark.slow


def launch(processes, *command, **variables):
    """Start `command` in several processes, as torchrun does; its output is text."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.Popen(
        [*torchrun, "--nproc-per-node", str(processes), *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip


def losses(run):
    """The loss of every step of a run."""
    return [line["loss"] for line in stats_of(run)]


# -- the same numbers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    return together.work(folder), folder


@pytest.fixture(scope="module", params=["2 copies", "4 copies", "2 parts"])
def several(request, tmp_path_factory):
    """What each of several processes finds, and their folder; some hold the network in parts."""
    number, parts = int(request.param[0]), "parts" in request.param
    folder = tmp_path_factory.mktemp("several")
    process = launch(number, together.__file__, folder, ACCELERATE_USE_FSDP=str(parts))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    ranks = [torch.load(folder / f"rank{i}.pt", weights_only=False) for i in range(number)]
    assert {(found["size"], found["parts"]) for found in ranks} == {(number, parts)}
    return ranks, folder


def test_several_processes_see_the_images_that_one_sees(alone, several):
    steps = zip(*(found["seen"] for found in several[0]), strict=True)
    seen = [torch.cat(shares) for shares in steps]
    assert len(seen) == len(alone[0]["seen"]) == 55
    assert all(map(torch.equal, seen, alone[0]["seen"]))


def test_the_losses_of_50_steps_are_the_same(alone, several):
    mine, theirs = losses(alone[1] / "run"), losses(several[1] / "run")
    assert len(mine) == 50
    assert theirs == pytest.approx(mine, rel=1e-5)


def test_dropout_depends_on_the_micro_batch_and_not_on_who_computes_it(alone, several):
    # Four micro-batches on one process, two on each of two, or one on each of four.
    mine, theirs = losses(alone[1] / "drop"), losses(several[1] / "drop")
    assert theirs == pytest.approx(mine, rel=1e-5)


def test_muon_spread_times_and_two_networks_are_the_same(alone, several):
    assert losses(several[1] / "recipe") == pytest.approx(losses(alone[1] / "recipe"), rel=1e-5)
    assert any(name.startswith("momentum.above.") for name in alone[0]["recipe"])
    for name, value in alone[0]["recipe"].items():
        found = several[0][0]["recipe"][name]
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_learned_schedule_is_the_same_on_every_copy(alone, several):
    if several[0][0]["parts"]:
        assert "learned" not in several[0][0]  # it is refused, see test_learned_training
        return
    assert losses(several[1] / "learned") == pytest.approx(losses(alone[1] / "learned"), rel=1e-5)
    names = [f"network.forward_variances.{part}" for part in ("shares", "first", "log_gap")]
    for name in (*names, "diffusion.betas", "network.conv_out.weight"):
        found, value = several[0][0]["learned"][name], alone[0]["learned"][name]
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-5, msg=name)


def test_samples_bounds_and_errors_are_the_same_in_every_process(alone, several):
    for found in several[0]:
        assert torch.equal(found["samples"], several[0][0]["samples"])
        assert torch.equal(found["three"], alone[0]["three"])  # fewer images than processes
        for name in ("bound", "errors"):
            for mine, theirs in zip(alone[0][name], found[name], strict=True):
                assert np.array_equal(mine, theirs), name


def test_the_first_samples_are_the_same_and_the_grid_is_drawn_once(alone, several):
    grid = Path("run", "samples", "step-00000050.png")
    difference = alone[0]["samples"].int() - several[0][0]["samples"].int()
    assert difference.abs().max() <= 1  # the weights agree to rounding
    assert difference.count_nonzero() < 1e-3 * difference.numel()
    assert sorted(p.name for p in (several[1] / grid).parent.iterdir()) == [grid.name]


def test_gradients_of_copies_are_exchanged_once_a_step(several):
    for found in several[0]:
        assert found["exchanges"] == (0 if found["parts"] else 1)  # parts have no hook to count


def test_parts_are_parts(alone, several):
    everything = alone[0]["held"]
    held = [found["held"] for found in several[0]]
    if several[0][0]["parts"]:
        assert sum(held) == everything
        assert max(held) < 0.6 * everything
    else:
        assert held == [everything] * len(held)


def test_a_mistake_of_one_process_is_made_by_all(several):
    for found in several[0]:
        assert found["mistakes"] == ["no log", "no image", "no space"]


def test_one_process_goes_on_from_the_checkpoint_of_several(alone, several, tmp_path):
    run = several[1] / "run"
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(checkpoint_path(run, 25), checkpoint_path(tmp_path, 25))
    train(together.CONFIG, tiny_images(), tmp_path, resume=True)
    assert losses(tmp_path) == pytest.approx(losses(alone[1] / "run")[25:], rel=1e-5)


# -- stopping and mistakes -----------------------------------------------------------------------


def worker(launcher, rank):
    """The process id of one process of a launcher, once it is there."""
    for _ in range(600):
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        for child in children:
            if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
                return int(child)
        time.sleep(0.1)
    raise TimeoutError


def exit_codes(output):
    """Those of torchrun's report; -15 is a process that was ending when torchrun ended it."""
    return set(map(int, re.findall(r"exitcode +: (-?\d+)", output)))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_signals_to_one_process_stop_all_at_one_step_saved(tmp_path):
    endless = ["--training.steps", "1000000", "--training.save-every", "1000000"]
    options = ["--training.batch-size", "4", "--out", str(tmp_path)]
    process = launch(2, "-m", "ddpm", "train", "digits", *TINY, *endless, *options)
    deadline = time.monotonic() + 120
    while len(stats_of(tmp_path)) < 3 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    target = worker(process.pid, 1)
    for _ in range(2):  # as when a scheduler tells everybody and torchrun passes it on
        os.kill(target, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    (said,) = re.findall(r"stopped by SIGTERM at step ([\d,]+), saved as", output)
    step = int(said.replace(",", ""))
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, step)]
    assert load_checkpoint(checkpoint_path(tmp_path, step))[1]["history"]["step"] == step
    assert exit_codes(output) <= {143, -15}


def test_a_batch_that_does_not_divide_is_one_sentence_and_exit_code_2(tmp_path):
    options = ["--training.batch-size", "9", "--out", str(tmp_path / "run")]
    process = launch(2, "-m", "ddpm", "train", "digits", *TINY, *options)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert output.count("ddpm: a batch of 9 cannot be cut into 2 equal parts") == 1
    assert 2 in exit_codes(output) <= {2, -15}
    assert output.count("Traceback") == 1  # torchrun's own
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_cannot_be_shared_says_so(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["demo"]) == 2
    assert capsys.readouterr().err.count("runs in one process") == 1


# -- one process ---------------------------------------------------------------------------------


def test_one_process_needs_no_group(alone):
    assert not torch.distributed.is_initialized()
    assert alone[0]["exchanges"] == 0


@pytest.mark.parametrize(("n", "processes"), [(64, 4), (10, 4), (3, 4), (0, 2)])
def test_shares_follow_one_another_and_are_even(monkeypatch, n, processes):
    monkeypatch.setattr(parallel, "size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        shares.append(parallel.local_range(n))
    assert [i for share in shares for i in share] == list(range(n))
    assert {len(share) for share in shares} <= {math.floor(n / processes), math.ceil(n / processes)}


# -- memory --------------------------------------------------------------------------------------


def test_micro_batches_change_nothing_but_the_rounding(tmp_path):
    config = tiny_config(flip=True, batch_size=8, log_every=1)
    runs = [tmp_path / str(parts) for parts in (1, 2, 8)]
    for run in runs:
        train(with_training(config, accumulate=int(run.name)), tiny_images(), run)
    for run in runs[1:]:
        assert losses(run) == pytest.approx(losses(runs[0]), rel=1e-5)
        assert losses(run) != losses(runs[0])


def test_micro_batches_that_do_not_divide_a_batch_are_refused(tmp_path):
    with pytest.raises(DdpmError, match="8 cannot be cut into 3 equal parts"):
        train(tiny_config(batch_size=8, accumulate=3), tiny_images(), tmp_path)


def kept_bytes(network, *inputs):
    """What a forward pass keeps for the backward pass, besides the weights."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(*inputs)
    return sum(storage.nbytes() for storage in kept.values())


def test_activation_checkpointing_keeps_less_and_trains_to_the_same_bits(tmp_path):
    config = tiny_config(dropout=0.3, steps=3)
    plain, frugal = (
        load_checkpoint(
            train(
                with_training(config, activation_checkpointing=flag), tiny_images(), tmp_path / name
            ).checkpoint
        )[0]
        for name, flag in (("plain", False), ("frugal", True))
    )
    assert all(torch.equal(plain[name], frugal[name]) for name in plain)
    facts = ImageFormat(1, 8, 8, 17)
    network = TrainingState(config, facts, torch.device("cpu")).network
    inputs = torch.randn(4, 1, 8, 8), torch.arange(4)
    before = kept_bytes(network, *inputs)
    network.activation_checkpointing = True
    assert kept_bytes(network, *inputs) < 0.6 * before


def test_a_process_of_several_leaves_with_its_exit_code_and_all_that_it_said():
    """PyTorch's threads abort one now and then that ends by itself, which no test can wait for."""
    for words, code in ((["models"], 0), (["info", "nowhere"], 2)):
        command = [sys.executable, "-m", "ddpm", *words]
        ends = [
            subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True)
            for more in ({"WORLD_SIZE": "1"}, {})
        ]
        assert ends[0].returncode == ends[1].returncode == code
        assert (ends[0].stdout, ends[0].stderr) == (ends[1].stdout, ends[1].stderr)
        assert ends[0].stdout or ends[0].stderr
