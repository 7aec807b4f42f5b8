"""The models that come with the package: there, whole, and usable by name."""

import torch

from ddpm.cli import main
from ddpm.likelihood.denoising_error import load_errors
from ddpm.model import load
from ddpm.pretrained import pretrained
from ddpm.runs.folder import errors_path


def test_models_lists_each_with_its_training(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for name in pretrained():
        assert name in text
    assert "985,600 images" in text


def test_every_model_has_its_errors_and_its_card():
    for name, file in pretrained().items():
        model = load(name, "cpu")
        assert model.source is not None
        assert model.source[0] == file
        errors = load_errors(errors_path(file), model.source[1])
        assert errors is not None
        assert errors.xstart_mse.shape == (model.diffusion.num_timesteps, *model.format.shape)
        card = file.with_suffix(".md").read_text()
        assert f"{model.network.num_parameters():,}" in card
        assert f"{model.history['images']:,}" in card


def test_a_name_stands_for_a_run_in_a_command(tmp_path, capsys):
    out = tmp_path / "one.npz"
    few = ["--sampler", "dpm-solver", "--trajectory", "quadratic", "--steps", "2"]
    assert main(["sample", "cifar10-small", "-n", "1", *few, "--out", str(out)]) == 0
    assert out.is_file()


def test_the_network_has_learned(monkeypatch):
    """It predicts the noise of a flat grey image far better than nothing does."""
    model = load("cifar10-small", "cpu")
    noise = torch.randn(2, 3, 32, 32)
    t = torch.full((2,), 300)
    x_t = model.diffusion.q_sample(torch.zeros_like(noise), t, noise)
    assert (model.denoiser()(x_t, t) - noise).square().mean() < 0.1
