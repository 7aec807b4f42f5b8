"""When a run is stopped for its loss: never a healthy one, always one that stays bad."""

import math

import pytest
import torch

from ddpm.config import TrainingConfig
from ddpm.errors import Diverged
from ddpm.training import train
from ddpm.training.divergence import LossWatch
from helpers import checkpoint_path, checkpoints, stats_of, tiny_config, tiny_images, with_training
from training.test_loop import at_step


def watched(losses, window=50, loss="simple", batch_size=128, warmup=100, earlier=()):
    """The step at which a run with these losses is stopped, and since when; (None, None) if not."""
    training = TrainingConfig(loss=loss, batch_size=batch_size, warmup=warmup)
    watch = LossWatch(training, earlier, simple=loss == "simple")
    for stop in range(window, len(losses) + 1, window):
        try:
            watch.see(losses[stop - window : stop], stop)
        except Diverged as error:
            return stop, error.since
    return None, None


def healthy(steps, batch_size=128, seed=0):
    """What L_simple looks like: near 0.03, near 1 at the few smallest timesteps of 1,000."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(0, 1000, (steps, batch_size), generator=generator).double()
    chi = 0.5 + torch.rand((steps, batch_size), generator=generator).double()
    return (chi * (0.015 + torch.exp(-t / 15))).mean(1).tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 128])
def test_a_healthy_loss_never_stops_a_run(batch_size):
    losses = healthy(2_000_000 // batch_size // (10 if batch_size == 128 else 100), batch_size)
    assert max(losses) / (sum(losses) / len(losses)) > (1.5 if batch_size == 128 else 5)
    for window in (1, 50):
        assert watched(losses, window, batch_size=batch_size) == (None, None)


def test_a_loss_that_falls_tenfold_while_warming_up_stops_nothing():
    losses = [10 ** (-2 * min(i / 1000, 1)) for i in range(2000)]
    assert watched(losses) == (None, None)


def test_a_loss_that_stays_high_stops_the_run_within_two_windows():
    for begins in (1000, 1013, 1049):
        losses = healthy(begins) + [1.0] * 200
        stop, since = watched(losses)
        assert stop - begins <= 100
        assert 0 < since - begins <= 50 or begins - since < 50


def test_a_rise_that_may_be_chance_and_a_single_high_step_stop_nothing():
    losses = healthy(1000)
    mean = sum(losses) / 1000
    assert watched(losses + [3 * mean] * 200) == (None, None)
    assert watched([*losses, 5.0, *losses]) == (None, None)


@pytest.mark.parametrize("loss", ["vlb", "hybrid"])
def test_a_bound_may_be_as_high_as_it_likes_but_not_infinite(loss):
    losses = healthy(1000) + [1.0] * 200
    assert watched(losses, loss=loss) == (None, None)
    losses[1020] = math.inf
    assert watched(losses, loss=loss) == (1050, 1021)


def test_a_resumed_run_knows_its_usual_loss():
    assert watched([1.0] * 200, warmup=0)[0] is None
    assert watched([1.0] * 200, warmup=0, earlier=[0.03] * 10) == (50, 1)


def jump(state):
    """Weights so bad that the loss is far above what it was, and finite."""
    with torch.no_grad():
        for parameter in state.network.parameters():
            parameter.mul_(10)


@pytest.mark.slow
def test_a_spike_stops_the_run_and_leaves_a_checkpoint_from_before(tmp_path, monkeypatch):
    # Windows of 5 steps of 64 images. The weights jump at the end of step 60, which is saved
    # before any loss shows it.
    options = {"batch_size": 64, "steps": 70, "warmup": 5, "save_every": 10, "log_every": 5}
    at_step(monkeypatch, 60, jump)
    with pytest.raises(Diverged, match=r"the loss rose to .*step-00000050.*is kept") as caught:
        train(tiny_config(**options), tiny_images(), tmp_path)
    assert caught.value.since == 61
    assert checkpoints(tmp_path)[-1] == checkpoint_path(tmp_path, 50)
    aside = [p.name for p in (tmp_path / "checkpoints").iterdir() if "diverged" in p.name]
    assert aside == ["diverged-step-00000060.safetensors"]
    monkeypatch.undo()
    train(tiny_config(**options), tiny_images(), tmp_path, resume=True)
    losses = {line["step"]: line["loss"] for line in stats_of(tmp_path)}
    assert max(losses[step] for step in range(55, 71, 5)) < 2 * losses[50]


def test_a_run_that_diverges_at_once_when_resumed_keeps_what_it_was_resumed_from(
    tmp_path, monkeypatch
):
    config = tiny_config(steps=10)
    train(config, tiny_images(), tmp_path)
    before = checkpoints(tmp_path)
    monkeypatch.setattr("ddpm.training.loop.TrainingStep.__call__", nan_step)
    with pytest.raises(Diverged, match=r"became nan at step 11; .*step-00000010"):
        train(with_training(config, steps=20), tiny_images(), tmp_path, resume=True)
    assert checkpoints(tmp_path) == before


def nan_step(self, images):
    """A step whose loss is not a number."""
    self.state.step += 1
    return torch.tensor(math.nan)
