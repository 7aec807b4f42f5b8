"""A run that ddpm 0.1 left behind: it loads, measures, compresses and is resumed.

`format1/` was written by that version: 20 steps of a tiny network on the digits, and its denoising
error, measured on 64 of them.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ddpm.data.digits import digits
from ddpm.errors import Damaged, DdpmError
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.runs import format1
from ddpm.training import train
from helpers import checkpoint_path, checkpoints, tensors_of, tiny_config

KEPT = Path(__file__).parent / "format1"
CONFIG = tiny_config(steps=20, dropout=0.1, save_every=20, time_sampling="bound")


@pytest.fixture
def run(tmp_path):
    """A copy of the folder."""
    return shutil.copytree(KEPT, tmp_path / "run")


def test_it_is_the_model_that_it_was():
    model, images = load(KEPT), digits("test").images[:16]
    assert model.config == CONFIG
    assert model.history.data == "digits (train)"
    assert model.history.images == 20 * 4
    # What version 0.1 drew and measured with it.
    samples = model.sample(2, seed=5).flatten()[:12].int()
    drawn = torch.tensor([15, 16, 16, 2, 0, 16, 4, 16, 16, 4, 16, 15])
    assert (samples - drawn).abs().max() <= 1
    assert model.bits_per_dim(images) == pytest.approx(5.800069945, abs=1e-5)
    bound = model.bound(images, plan=Plan(5, "optimal", "analytic"))
    assert bound.timesteps.tolist() == [15, 16, 17, 18, 19]
    assert bound.mean == pytest.approx(3.433384610, abs=1e-5)


def test_its_denoising_error_came_from_the_file_beside_it_and_goes_with_it(run, tmp_path):
    model = load(run)
    assert model.denoising_error.images == 64
    model.save(tmp_path / "one.safetensors")
    again = load(tmp_path / "one.safetensors")
    assert (again.denoising_error.xstart_mse == model.denoising_error.xstart_mse).all()


def test_an_error_of_another_checkpoint_or_a_damaged_one_is_not_used(run, caplog):
    beside = format1.beside(checkpoint_path(run, 20))
    data = beside.read_bytes()
    start = data.index(b'model\\": \\"') + 11
    beside.write_bytes(data[:start] + b"0000" + data[start + 4 :])
    assert load(run).denoising_error is None
    assert not caplog.records
    beside.write_bytes(data[:100])
    assert load(run).denoising_error is None
    assert "measure the model again" in caplog.text


def test_it_is_resumed_and_what_is_written_then_is_of_the_present_format(run, tmp_path):
    longer = replace(CONFIG, training=replace(CONFIG.training, steps=30))
    result = train(longer, digits("train"), run, resume=True)
    assert result.step == 30
    with safe_open(result.checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["ddpm"])["format"] == 2
    assert load(run).denoising_error is not None
    before, after = tensors_of(checkpoint_path(run, 20)), tensors_of(result)
    assert before.keys() - {"diffusion.betas"} <= after.keys() | before.keys()
    moved = (after["network.conv_in.weight"] - before["network.conv_in.weight"]).abs().max()
    assert 0 < moved < 0.1  # ten steps on from where it was, not from the start


def test_a_complete_run_is_resumed_and_gets_what_it_lacks(run):
    format1.beside(checkpoint_path(run, 20)).unlink()
    assert load(run).denoising_error is None
    train(CONFIG, digits("train"), run, resume=True)
    assert load(run).denoising_error.images == 750


def test_damage_is_noticed(run):
    (path,) = checkpoints(run)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="checksum"):
        load(run)


@pytest.mark.parametrize("part", ["facts", "history", "config"])
def test_a_description_that_lacks_something_is_one_sentence(run, part):
    (path,) = checkpoints(run)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["ddpm"])
    del metadata[part]
    with pytest.raises(DdpmError, match="does not hold the model that it describes"):
        format1.upgrade(path, {}, metadata)
