"""A model that has learned something, trained once for all tests of the codec."""

import pytest

from ddpm.data.digits import digits
from ddpm.loading import load
from ddpm.training import train
from helpers import tiny_config


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run on the digits, of some seconds, measured, with a last stage."""
    folder = tmp_path_factory.mktemp("codec") / "run"
    config = tiny_config(
        steps=400,
        batch_size=32,
        lr=3e-3,
        save_every=400,
        log_every=400,
        last_stage_steps=300,
    )
    train(config, digits("train"), folder)
    return folder


@pytest.fixture(scope="session")
def model(run):
    """The model of `run`."""
    return load(run)


@pytest.fixture(scope="session")
def held_out():
    """Digits it was not trained on, [40, 1, 8, 8]."""
    return digits("test").images[:40]
