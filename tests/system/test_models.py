"""The models that come with the package: one file each, whole, and usable by name."""

import torch

from ddpm.cli import main
from ddpm.loading import load
from ddpm.pretrained import pretrained
from ddpm.training.presets import get_preset


def test_models_lists_each_with_its_training(capsys):
    assert main(["models"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in pretrained():
        model = load(name, "cpu")
        assert name in text
        assert f"{model.history.images:,} images" in text
        assert f"{model.num_parameters:,}" in text


def test_every_model_is_one_file_with_its_error_and_its_card():
    for name, file in pretrained().items():
        model = load(name, "cpu")
        assert model.denoising_error is not None
        assert model.denoising_error.xstart_mse.shape[1:] == model.format.shape
        assert model.denoising_error.timesteps[-1] == model.diffusion.num_timesteps - 1
        card = file.with_suffix(".md").read_text(encoding="utf-8")
        assert f"{model.num_parameters:,}" in card
        assert f"{model.history.images:,}" in card


def test_a_name_is_one_network_whether_it_is_a_preset_or_a_model():
    for name in pretrained():
        model, preset = load(name, "cpu"), get_preset(name)
        assert preset.network == model.config.network
        assert preset.diffusion == model.config.diffusion
        assert preset.data.image_size == model.format.height


def test_a_name_stands_for_a_run_in_a_command(tmp_path, capsys):
    out = tmp_path / "one.npz"
    few = ["--sampler", "dpm-solver", "--trajectory", "quadratic", "--steps", "2"]
    assert main(["sample", "cifar10-small", "-n", "1", *few, "--out", str(out)]) == 0
    assert out.is_file()


def test_the_network_has_learned():
    """It finds a flat grey image in its noise far better than nothing does."""
    model = load("cifar10-small", "cpu")
    noise = torch.randn(2, 3, 32, 32)
    t = torch.full((2,), 300)
    x_t = model.diffusion.q_sample(torch.zeros_like(noise), t, noise)
    clean = model.diffusion.p_mean_variance(model.denoiser(), x_t, t).pred_xstart
    assert clean.square().mean() < 0.02
