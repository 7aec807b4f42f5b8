"""The configuration: checked when built, and the same after a trip through JSON."""

import json
from dataclasses import replace

import pytest

from ddpm.config import Config, DataConfig, DiffusionConfig, TrainingConfig, UNetConfig
from ddpm.errors import DdpmError
from ddpm.registry import names
from ddpm.training import get_preset
from helpers import tiny_config
from typecheck import unchecked


@pytest.mark.parametrize("name", names("preset"))
def test_every_preset_survives_json(name):
    config = get_preset(name)
    stored = json.loads(json.dumps(config.to_dict()))
    assert Config.from_dict(stored) == config


def test_settings_that_are_not_stored_get_their_defaults():
    assert Config.from_dict({"training": {"lr": 0.5}}) == Config(training=TrainingConfig(lr=0.5))


def test_a_setting_of_another_version_is_named():
    stored = tiny_config().to_dict()
    stored["training"]["momentum"] = 0.9
    with pytest.raises(DdpmError, match=r"unknown setting training\.momentum"):
        Config.from_dict(stored)


@pytest.mark.parametrize("value", ["steps", "batch_size", "save_every", "log_every"])
def test_counts_must_be_positive(value):
    with pytest.raises(DdpmError, match=f"{value} must be at least 1, got 0"):
        TrainingConfig(**{value: 0})


@pytest.mark.parametrize("value", ["warmup", "sample_every", "seed"])
def test_what_may_be_zero_may_not_be_negative(value):
    assert getattr(TrainingConfig(**{value: 0}), value) == 0
    with pytest.raises(DdpmError, match=f"{value} must be at least 0, got -1"):
        TrainingConfig(**{value: -1})


@pytest.mark.parametrize(
    ("group", "settings", "words"),
    [
        (TrainingConfig, {"lr": 0.0}, "lr must be positive"),
        (TrainingConfig, {"lr": -2e-4}, "lr must be positive, got -0.0002"),
        (TrainingConfig, {"lr": float("nan")}, "lr must be positive"),
        (TrainingConfig, {"grad_clip": 0.0}, "grad_clip must be positive"),
        (TrainingConfig, {"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\)"),
        (TrainingConfig, {"ema_decay": -0.1}, r"ema_decay must lie in \[0, 1\)"),
        (TrainingConfig, {"max_minutes": 0.0}, "max_minutes must be positive"),
        (TrainingConfig, {"time_sampling": "bound", "loss": "vlb"}, "use one of the two"),
        (DataConfig, {"image_size": 0}, "image_size must be at least 1"),
        (DataConfig, {"channels": 4}, "channels must be 1 or 3, got 4"),
        (DiffusionConfig, {"timesteps": 0}, "T must be at least 1, got 0"),
        (DiffusionConfig, {"schedule": "liner"}, "unknown schedule 'liner'"),
        (DiffusionConfig, {"beta_start": 0.1}, "beta_start <= beta_end"),
    ],
)
def test_values_out_of_range_are_refused_when_the_group_is_built(group, settings, words):
    with unchecked(), pytest.raises(DdpmError, match=words):
        group(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        ({}, (3, 30, 30), "divisible by 8, got 30x30"),
        ({"ch": 48}, (3, 32, 32), "48 channels do not divide into 32 groups"),
        ({"ch_mult": ()}, (3, 32, 32), "ch_mult"),
        ({"num_res_blocks": 0}, (3, 32, 32), "num_res_blocks"),
        ({"dropout": 1.0}, (3, 32, 32), "dropout"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_when_built(settings, shape, words):
    with pytest.raises(DdpmError, match=words):
        UNetConfig(**settings).build(shape, shape[0])


def test_learned_variances_double_the_output_channels():
    config = tiny_config()
    assert config.build_network((3, 8, 8)).conv_out.out_channels == 3
    learned = replace(config, diffusion=DiffusionConfig(variance_type="learned"))
    assert learned.build_network((3, 8, 8)).conv_out.out_channels == 6


def test_the_bounds_times_are_for_networks_that_predict_the_noise_or_v():
    for sampling in ("bound", "both"):
        training = TrainingConfig(time_sampling=sampling)
        for prediction in ("sample", "previous_mean"):
            diffusion = DiffusionConfig(prediction_type=prediction)
            with pytest.raises(
                DdpmError, match=rf"\(epsilon\) or v_prediction, not '{prediction}'"
            ):
                Config(diffusion=diffusion, training=training)
        Config(diffusion=DiffusionConfig(prediction_type="v_prediction"), training=training)
