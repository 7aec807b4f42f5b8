"""A model of two networks by noise level does all that a model of one does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddpm import Ddpm
from ddpm.cli import main
from ddpm.errors import DdpmError
from ddpm.interop.export import export_diffusers
from ddpm.loading import load
from ddpm.runs.folder import RunFolder
from ddpm.training import train
from helpers import tiny_config, tiny_images, with_training
from mistakes import refused


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two networks, of T = 20 with the switch at 6."""
    folder = tmp_path_factory.mktemp("two") / "run"
    config = tiny_config(
        steps=30, optimizer="muon", stratified_time=True, time_sampling="both", batch_size=8
    )
    config = replace(
        config,
        network=replace(config.network, switch=6),
        diffusion=replace(config.diffusion, prediction_type="v_prediction"),
    )
    train(config, tiny_images(60), folder)
    return folder


def test_it_is_saved_and_loaded_with_both(run, tmp_path):
    model = load(run, "cpu")
    assert model.config.network.switch == 6
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", "cpu")
    assert torch.equal(again.sample(3), model.sample(3))
    assert model.denoising_error is not None


def test_it_draws_with_the_network_of_each_time(run):
    model = load(run, "cpu")
    both = model.sample(4, seed=1)

    class ByHand(torch.nn.Module):
        def forward(self, x, t):
            assert (t == t[0]).all()
            return (model.network.below if t[0] < 6 else model.network.above)(x, t)

        def parameters(self, recurse=True):
            return model.network.parameters()

    by_hand = Ddpm(model.config, model.format, ByHand())
    assert torch.equal(by_hand.sample(4, seed=1), both)
    assert not torch.equal(model.network.below(*_asked()), model.network.above(*_asked()))


def _asked():
    return torch.zeros(1, 1, 8, 8), torch.tensor([3])


def test_its_archives_come_back(run):
    model, images = load(run, "cpu"), tiny_images(5).images
    result = model.decompress(model.compress(images, steps=5))
    assert result.exact
    assert all(map(torch.equal, result.images, images))


def test_another_switch_is_another_model(run):
    model = load(run, "cpu")
    fingerprint = model.for_codec().fingerprint
    model.network.switch = 7
    assert model.for_codec().fingerprint != fingerprint


def test_weights_of_one_network_are_no_start_for_two(run, tmp_path):
    model = load(run, "cpu")
    model.save(tmp_path / "two.safetensors")
    one = with_training(tiny_config(), start_from=str(tmp_path / "two.safetensors"))
    with pytest.raises(DdpmError, match=r"another network.*network\.switch 6"):
        train(one, tiny_images(), tmp_path / "one")
    assert not RunFolder(tmp_path / "one").checkpoints()


@pytest.mark.parametrize("form", ["diffusers", "safetensors"])
def test_no_other_program_knows_it(run, tmp_path, capsys, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    words = ("two networks", "network.switch")
    refused(["export", str(run), "--format", form, "--out", "out"], capsys, *words)
    assert not Path("out").exists()
    assert main(["info", str(run)]) == 0
    assert "network.switch" in capsys.readouterr().out


def test_the_python_door_refuses_it_too(run, tmp_path):
    with pytest.raises(DdpmError, match="two networks"):
        export_diffusers(load(run, "cpu"), tmp_path / "out", "two")
