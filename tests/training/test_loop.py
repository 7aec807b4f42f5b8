"""The training loop: resuming to the bit, what stops it, and what a run leaves behind."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image

from ddpm.data.folder import image_folder
from ddpm.errors import DdpmError
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import RunLog
from ddpm.training import loop, train
from helpers import (
    checkpoint_path,
    checkpoints,
    stats_of,
    tensors_of,
    tiny_config,
    tiny_images,
    with_training,
)


def assert_identical(a, b):
    """The same names and the same bits: weights, averages and both moments of Adam."""
    assert set(a) == set(b)
    parts = {"network", "ema", "exp_avg", "exp_avg_sq", "diffusion"}
    assert {name.split(".")[0] for name in a} - {"denoising_error", "codec"} == parts
    for name in a:
        assert torch.equal(a[name], b[name]), name


def at_step(monkeypatch, number, action):
    """Have `action` happen when the loop has taken `number` steps."""
    real = loop.TrainingStep.__call__

    def call(self, images):
        loss = real(self, images)
        if self.state.step == number:
            action(self.state)
        return loss

    monkeypatch.setattr(loop.TrainingStep, "__call__", call)


# -- resuming ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dropout_and_flips_do_change_the_weights(tmp_path):
    plain, dropped, flipped = (
        tensors_of(train(tiny_config(steps=3, **options), tiny_images(), tmp_path / str(i)))
        for i, options in enumerate([{}, {"dropout": 0.1}, {"flip": True}])
    )
    for other in (dropped, flipped):
        assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_another_seed_gives_other_weights(tmp_path):
    a, b = (
        tensors_of(train(tiny_config(steps=1, seed=s), tiny_images(), tmp_path / str(s)))
        for s in (0, 1)
    )
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_complete_run_can_be_resumed_and_stays_as_it_is(tmp_path):
    first = train(tiny_config(), tiny_images(), tmp_path)
    before = tensors_of(first)
    again = train(tiny_config(), tiny_images(), tmp_path, resume=True)
    assert (again.step, again.stopped, again.checkpoint) == (20, None, first.checkpoint)
    assert_identical(tensors_of(again), before)


def test_a_streamed_folder_trains_to_the_same_weights_as_one_in_memory(tmp_path):
    (tmp_path / "images").mkdir()
    for i, pixels in enumerate(tiny_images(6, 256).images):
        Image.fromarray(pixels[0].numpy()).save(tmp_path / "images" / f"{i}.png")
    config = tiny_config(steps=4)
    memory = image_folder(tmp_path / "images", 8, 1)
    streamed = image_folder(tmp_path / "images", 8, 1, memory_limit=0)
    a = train(config, memory, tmp_path / "a")
    b = train(config, streamed, tmp_path / "b")
    assert_identical(tensors_of(a), tensors_of(b))


# -- stopping ------------------------------------------------------------------------------------


def test_a_second_signal_does_not_wait_for_the_step_to_end(tmp_path, monkeypatch):
    def twice(state):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), tiny_images(), tmp_path)


@pytest.mark.slow
def test_max_minutes_saves_and_the_rest_can_be_resumed(tmp_path):
    config, images = tiny_config(steps=12), tiny_images()
    whole = train(config, images, tmp_path / "whole")
    hurried = with_training(config, max_minutes=1e-9)
    first = train(hurried, images, tmp_path / "run")
    assert (first.step, first.stopped) == (1, "max_minutes")
    second = train(hurried, images, tmp_path / "run", resume=True)
    assert (second.step, second.stopped) == (2, "max_minutes")
    rest = train(config, images, tmp_path / "run", resume=True)
    assert_identical(tensors_of(rest), tensors_of(whole))


def test_a_run_that_is_complete_was_not_stopped_even_if_its_time_is_up(tmp_path):
    result = train(tiny_config(steps=1, max_minutes=1e-9), tiny_images(), tmp_path)
    assert (result.step, result.stopped) == (1, None)


# -- what can go wrong ---------------------------------------------------------------------------


def spoil(state):
    """Make every weight infinite."""
    with torch.no_grad():
        for parameter in state.network.parameters():
            parameter.fill_(math.inf)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    at_step(monkeypatch, 12, spoil)
    with pytest.raises(DdpmError, match=r"the loss became nan at step 1[3-5]"):
        train(tiny_config(), tiny_images(), tmp_path)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 10)]
    tensors = tensors_of(checkpoint_path(tmp_path, 10))
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    # The loss of step 10 is finite; its update is not.
    at_step(monkeypatch, 10, spoil)
    with pytest.raises(DdpmError, match=r"lower training\.lr"):
        train(tiny_config(), tiny_images(), tmp_path)
    for path in checkpoints(tmp_path):
        tensors = tensors_of(path)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_an_existing_run_is_not_overwritten(tmp_path):
    result = train(tiny_config(steps=2), tiny_images(), tmp_path)
    before = result.checkpoint.read_bytes()
    with pytest.raises(DdpmError, match="already holds a run; resume it"):
        train(tiny_config(steps=2, seed=1), tiny_images(), tmp_path)
    assert result.checkpoint.read_bytes() == before
    assert json.loads((tmp_path / "config.json").read_text())["training"]["seed"] == 0


@pytest.mark.parametrize("make", [False, True])
def test_resuming_what_is_not_there_is_refused_and_leaves_nothing(tmp_path, make):
    run = tmp_path / "run"
    if make:
        run.mkdir()
    with pytest.raises(DdpmError):
        train(tiny_config(), tiny_images(), run, resume=True)
    assert list(tmp_path.rglob("*")) == ([run] if make else [])


@pytest.mark.parametrize("group", ["network", "diffusion"])
def test_resuming_with_another_model_is_refused(tmp_path, group):
    config = tiny_config(steps=2)
    train(config, tiny_images(), tmp_path)
    other = {
        "network": replace(config, network=replace(config.network, num_res_blocks=2)),
        "diffusion": replace(config, diffusion=replace(config.diffusion, timesteps=21)),
    }[group]
    with pytest.raises(DdpmError, match=f"other {group} settings"):
        train(other, tiny_images(), tmp_path, resume=True)


@pytest.mark.parametrize("change", [{"channels": 3}, {"grey_levels": 256}])
def test_resuming_on_images_of_another_kind_is_refused(tmp_path, change):
    train(tiny_config(steps=2), tiny_images(), tmp_path)
    with pytest.raises(DdpmError):
        train(tiny_config(steps=4), tiny_images(**change), tmp_path, resume=True)


# -- what a run leaves ---------------------------------------------------------------------------


def test_a_run_leaves_its_configuration_curves_checkpoints_and_sample_grids(tmp_path):
    config = tiny_config(sample_every=10)
    result = train(config, tiny_images(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["lr"] == 1e-3
    assert [line["step"] for line in stats_of(tmp_path)] == [5, 10, 15, 20]
    assert [p.name for p in checkpoints(tmp_path)] == [
        "step-00000010.safetensors",
        "step-00000020.safetensors",
    ]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "step-00000010.png",
        "step-00000020.png",
    ]
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert result.checkpoint == checkpoints(tmp_path)[-1]
    assert not list(tmp_path.rglob("*.partial"))


def test_the_learning_rate_in_the_log_is_that_of_the_step_just_taken(tmp_path):
    train(tiny_config(log_every=1, steps=6), tiny_images(), tmp_path)
    rates = [line["lr"] for line in stats_of(tmp_path)]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])


def test_the_last_two_checkpoints_are_kept(tmp_path):
    train(tiny_config(save_every=3, steps=14), tiny_images(), tmp_path)
    assert [int(p.stem[5:]) for p in checkpoints(tmp_path)] == [12, 14]


def test_the_log_forgets_what_a_resumed_run_will_measure_again(tmp_path):
    log = RunLog(RunFolder(tmp_path), 0)
    for step in (10, 20, 30):
        log.write(step, loss=1.0 / step)
    log.close()
    log = RunLog(RunFolder(tmp_path), 20)
    log.write(25, loss=0.5)
    log.close()
    assert [line["step"] for line in stats_of(tmp_path)] == [10, 20, 25]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "stats.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert stats_of(tmp_path) == [{"step": 1, "loss": 2.0}]
    assert stats_of(tmp_path / "nowhere") == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "flip": True}])
def test_resuming_gives_bit_identical_weights(tmp_path, options):
    config, images = tiny_config(steps=200, **options), tiny_images(n=30)
    train(config, images, tmp_path / "whole")
    train(with_training(config, steps=100), images, tmp_path / "parts")
    train(config, images, tmp_path / "parts", resume=True)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not any(torch.equal(whole[k], whole[k.replace("network", "ema")])
                   for k in whole if k.startswith("network.conv_out.w"))  # fmt: skip
    assert [line["step"] for line in stats_of(tmp_path / "parts")] == list(range(5, 201, 5))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_happened(tmp_path, number):
    config, images = tiny_config(), tiny_images()

    class Interrupting(type(images)):
        def __getitem__(self, indices):
            Interrupting.reads += 1
            if Interrupting.reads == 8:
                os.kill(os.getpid(), number)
            return super().__getitem__(indices)

        def to(self, device):
            return self

    Interrupting.reads = 0
    source = Interrupting(images.images, 17, "noise")
    result = train(config, source, tmp_path / "parts")
    assert (result.stopped, result.step) == (signal.Signals(number).name, 7)
    assert result.checkpoint.is_file()
    train(config, images, tmp_path / "parts", resume=True)
    train(config, images, tmp_path / "whole")
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path):
    config = tiny_config(steps=300, log_every=50, lr=3e-3)
    train(config, tiny_images(n=4, seed=3), tmp_path)
    losses = [line["loss"] for line in stats_of(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]
