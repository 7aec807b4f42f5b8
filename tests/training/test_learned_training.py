"""Runs with a learned schedule: stored by value, averaged, resumed, exported, or refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ddpm
from ddpm.cli import main
from ddpm.config import Config, DiffusionConfig
from ddpm.data.images import ImageFormat
from ddpm.diffusion.learned import LearnedLogSnr, log_snr
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.training import train
from ddpm.training.state import TrainingState
from helpers import checkpoint_path, tensors_of, tiny_config, tiny_images, tiny_model, with_training
from mistakes import refused


def learned_config(ends="free", timesteps=12, **training):
    """A run that is over in a second."""
    config = tiny_config(loss="vlb", lr=1e-2, log_every=1, **training)
    diffusion = DiffusionConfig(
        schedule="learned", timesteps=timesteps, ends=ends, variance_type="fixed_small"
    )
    return replace(config, diffusion=diffusion)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twenty steps."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    train(learned_config(), tiny_images(), folder)
    return folder


def averaged(tensors, prefix, config):
    """The schedule of a checkpoint's parameters."""
    learned = LearnedLogSnr(config.diffusion.build().schedule)
    names = ("shares", "first", "log_gap")
    learned.load_state_dict({n: tensors[f"{prefix}.forward_variances.{n}"] for n in names})
    return learned.schedule()


def test_what_is_stored_by_value_is_the_averaged_schedule(run):
    tensors, config = tensors_of(run), learned_config()
    betas = tensors["diffusion.betas"].numpy()
    assert np.array_equal(betas, averaged(tensors, "ema", config).betas)
    assert not np.allclose(betas, averaged(tensors, "network", config).betas, rtol=1e-3)
    assert not np.allclose(betas, config.diffusion.build().schedule.betas, rtol=1e-3)


def test_the_model_that_is_loaded_has_that_schedule_and_a_plain_network(run, tmp_path):
    model, tensors = load(run), tensors_of(run)
    assert np.array_equal(model.diffusion.schedule.betas, tensors["diffusion.betas"].numpy())
    plain = tiny_model().network.state_dict().keys()
    assert model.network.state_dict().keys() == plain
    images = tiny_images(4).images
    model.save(tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors")
    assert np.array_equal(again.diffusion.schedule.betas, model.diffusion.schedule.betas)
    assert again.bits_per_dim(images) == model.bits_per_dim(images)
    assert torch.equal(again.sample(2, steps=5), model.sample(2, steps=5))
    assert torch.equal(torch.stack(model.decompress(model.compress(images)).images), images)


def test_the_bound_of_the_model_is_of_the_schedule_it_learned(run):
    """Another chain with other betas has another bound, and its prior is that of abar_T."""
    model, images = load(run), tiny_images(6).images
    bound = model.bound(images)
    abar = np.prod(1 - model.diffusion.schedule.betas)
    x = images.double() / 8 - 1
    expected = 0.5 * (abar * x.square().flatten(1).mean(1) - abar - np.log(1 - abar)) / np.log(2)
    assert np.allclose(bound.prior, expected, rtol=1e-3, atol=1e-8)


def test_the_error_that_a_run_ends_with_is_that_of_its_own_noise_levels(run):
    model = load(run)
    stored = model.denoising_error
    again = model.measure(tiny_images())
    assert np.allclose(stored.xstart_mse, again.xstart_mse, rtol=1e-6)


@pytest.mark.parametrize("ends", ["free", "fixed"])
def test_ends_move_or_stay(ends, tmp_path):
    train(learned_config(ends), tiny_images(), tmp_path / "run")
    before = log_snr(learned_config().diffusion.build().schedule)
    after = log_snr(load(tmp_path / "run").diffusion.schedule)
    moved = np.abs(after - before)
    assert moved[1:-1].min() > 1e-3
    assert (moved[[0, -1]] < 1e-4).all() == (ends == "fixed")
    assert (np.diff(after) < 0).all()


def test_a_run_that_is_resumed_ends_with_the_same_bits(run, tmp_path):
    config = learned_config()
    train(with_training(config, steps=10), tiny_images(), tmp_path / "run")
    train(config, tiny_images(), tmp_path / "run", resume=True)
    one, two = tensors_of(run), tensors_of(tmp_path / "run")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    moments = {f"exp_avg_sq.forward_variances.{n}" for n in ("shares", "first", "log_gap")}
    assert moments <= one.keys()
    assert all(bool(one[name].abs().sum() > 0) for name in moments)


def test_micro_batches_change_nothing_but_the_rounding(run, tmp_path):
    train(learned_config(accumulate=2), tiny_images(), tmp_path / "run")
    one, two = (log_snr(load(folder).diffusion.schedule) for folder in (run, tmp_path / "run"))
    assert np.allclose(one, two, atol=1e-3)
    assert not np.allclose(one, log_snr(learned_config().diffusion.build().schedule), atol=1e-2)


def test_spread_times_muon_and_weights_to_start_from_work_with_it(run, tmp_path):
    config = learned_config(
        stratified_time=True, optimizer="muon", start_from=str(run), sample_every=10, steps=10
    )
    result = train(config, tiny_images(), tmp_path / "run", held_out=tiny_images(4, seed=2))
    assert result.stopped is None
    first = checkpoint_path(tmp_path / "run", 10)
    # The weights are those of the run; the schedule begins anew.
    state = TrainingState(config, ImageFormat(1, 8, 8, 17), torch.device("cpu"))
    state.start_from(load(run))
    assert torch.equal(state.network.conv_in.weight, tensors_of(run)["ema.conv_in.weight"])
    begun = log_snr(config.diffusion.build().schedule)
    assert np.allclose(log_snr(state.diffusion.schedule), begun, atol=1e-4)
    assert first.is_file()


def test_other_settings_of_a_schedule_are_another_run(run):
    config = learned_config("fixed")
    with pytest.raises(DdpmError, match="other diffusion settings"):
        train(config, tiny_images(), run, resume=True)


def test_shards_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("ddpm.training.learned_schedule.is_sharded", lambda: True)
    with pytest.raises(DdpmError, match="cannot be sharded; train without FSDP"):
        TrainingState(learned_config(), ImageFormat(1, 8, 8, 17), torch.device("cpu"))


def test_a_loss_of_ones_own_is_refused(tmp_path):
    def mine(diffusion, denoiser, x_start, t, noise):
        return noise.flatten(1).mean(1)

    with pytest.raises(DdpmError, match="with the bound, not with a loss of one's own"):
        train(learned_config(), tiny_images(), tmp_path / "run", loss=mine)


@pytest.mark.parametrize(
    ("diffusion", "training", "words"),
    [
        ({"schedule": "learned"}, {}, "training.loss is 'simple'; set it to vlb"),
        ({"schedule": "learned"}, {"loss": "hybrid"}, "training.loss is 'hybrid'; set it to vlb"),
        ({"ends": "fixed"}, {}, "has no effect on the schedule linear"),
        ({"schedule": "learned", "timesteps": 1}, {}, "at least 2 steps"),
        ({"schedule": "learned", "betas": (0.1, 0.2)}, {}, "betas by value are not learned"),
        ({"schedule": "learned", "beta_end": 1.0}, {}, "ends in pure noise; lower beta_end"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(diffusion, training, words):
    paper = Config().training
    with pytest.raises(DdpmError, match=words) as caught:
        Config(diffusion=DiffusionConfig(**diffusion), training=replace(paper, **training))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_line_trains_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--network.ch", "8", "--network.norm-groups", "4", "--diffusion.timesteps", "8"]
    learned = ["--diffusion.schedule", "learned", "--training.steps", "2"]
    refused(["train", "digits", *learned, *small, "--out", "run"], capsys, "--training.loss")
    loss = ["--training.loss", "vlb", "--training.sample-every", "0"]
    assert main(["train", "digits", *learned, *small, *loss, "--out", "run"]) == 0
    assert main(["info", "run"]) == 0
    assert "learned" in capsys.readouterr().out
    assert main(["export", "run", "--out", "diffusers"]) == 0
    back = ddpm.load("diffusers").diffusion.schedule.betas
    assert np.allclose(back, ddpm.load("run").diffusion.schedule.betas, rtol=1e-6)


@pytest.mark.slow
def test_the_cost_of_a_run_can_be_told(capsys):
    small = ["--network.ch", "8", "--network.norm-groups", "4", "--diffusion.timesteps", "8"]
    learned = ["--diffusion.schedule", "learned", "--training.loss", "vlb"]
    assert main(["info", "digits", *learned, *small]) == 0
    assert "parameters" in capsys.readouterr().out
