"""The training loop in detail: one step by hand, what stops it, and what a run leaves behind."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ddpm.config import TrainingConfig
from ddpm.data.folder import image_folder
from ddpm.data.images import ImageFormat
from ddpm.errors import DdpmError
from ddpm.runs.folder import RunFolder
from ddpm.runs.log import RunLog
from ddpm.runtime.randomness import Randomness, derive_key
from ddpm.training import loop, train
from ddpm.training.state import TrainingState
from ddpm.training.step import learning_rate
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
    assert {name.split(".")[0] for name in a} - {"denoising_error"} == parts
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


# -- the learning rate ---------------------------------------------------------------------------


def test_the_cosine_is_multiplied_by_the_warm_up():
    training = TrainingConfig(lr=1.0, warmup=500, steps=1000, lr_decay="cosine")
    assert learning_rate(training, 249) == pytest.approx(0.5 * (1 + math.cos(0.249 * math.pi)) / 2)


# -- one step by hand ----------------------------------------------------------------------------


def first_loss_by_hand(config, images, network, index):
    """Algorithm 1's loss of step 0 in a few lines of its own (Eq. 4 and 14)."""
    x = images.images[index].double() / 8 - 1  # 17 grey levels
    slots = torch.arange(len(index))
    if config.data.flip:
        mirrored = Randomness(config.training.seed, "flip").integers(slots, 2, 0).bool()
        x = torch.stack([p.flip(-1) if m else p for p, m in zip(x, mirrored, strict=True)])
    t = Randomness(config.training.seed, "timestep").integers(slots, 20, 0)
    noise = Randomness(config.training.seed, "noise").normal(slots, x.shape[1:], 0).double()
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.2, 20, dtype=torch.float64), 0)[t]
    abar = abar[:, None, None, None]
    x_t = abar.sqrt() * x + (1 - abar).sqrt() * noise
    return F.mse_loss(network(x_t.float(), t), noise.float())


def initial_network(config):
    """The network as a run of this configuration begins with it."""
    facts = ImageFormat(1, 8, 8, 17)
    return TrainingState(config, facts, torch.device("cpu")).network


@pytest.mark.parametrize("flip", [False, True])
def test_the_loss_of_step_0_is_the_one_computed_by_hand(tmp_path, flip):
    config = tiny_config(steps=1, flip=flip, batch_size=8)
    images = tiny_images(8)
    order = torch.Generator().manual_seed(derive_key(0, "order", 0))
    index = torch.randperm(8, generator=order)
    network = initial_network(config)
    expected = first_loss_by_hand(config, images, network, index).item()
    train(config, images, tmp_path)
    (line,) = stats_of(tmp_path)
    assert line["step"] == 1
    assert line["loss"] == pytest.approx(expected, rel=1e-5)
    assert 0.5 < expected < 1.5  # the fresh network predicts about nothing of unit noise


def test_the_first_step_is_adams_with_the_clipped_gradient(tmp_path):
    # Adam's first step is -lr g / (|g| + eps), g being the gradient scaled to norm `grad_clip`.
    config = tiny_config(steps=1, batch_size=8, warmup=4, lr=4e-3, grad_clip=1e-3)
    images = tiny_images(8)
    order = torch.Generator().manual_seed(derive_key(0, "order", 0))
    network = initial_network(config)
    first_loss_by_hand(config, images, network, torch.randperm(8, generator=order)).backward()
    norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in network.parameters()))
    assert norm > 1e-3
    stored = tensors_of(train(config, images, tmp_path))
    for name, parameter in network.named_parameters():
        g = parameter.grad.double() * (1e-3 / norm)
        torch.testing.assert_close(
            stored[f"exp_avg.{name}"].double(), 0.1 * g, rtol=1e-3, atol=1e-9
        )
        torch.testing.assert_close(
            stored[f"exp_avg_sq.{name}"].double(), 1e-3 * g**2, rtol=1e-3, atol=1e-15
        )
        clear = g.abs() > 1e-7  # elsewhere eps and rounding decide
        moved = (stored[f"network.{name}"] - parameter.detach()).double()
        expected = -1e-3 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(moved[clear], expected[clear], rtol=5e-2, atol=2e-7)
        shadow = (stored[f"ema.{name}"] - parameter.detach()).double()
        torch.testing.assert_close(shadow, 0.1 * moved, rtol=1e-3, atol=2e-7)


# -- resuming ------------------------------------------------------------------------------------


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
