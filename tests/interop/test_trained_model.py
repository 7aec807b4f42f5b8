"""A trained model drawn by diffusers and by us from the same noises."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

import ddpm
from ddpm.cli import main
from ddpm.config import Config
from full_range import one_thread
from helpers import with_training

IMAGES = 8


def digits():
    """Some of their training images."""
    images = ddpm.open_data("digits", "train", image_size=8, channels=1)
    return ddpm.MemoryImages(images[torch.arange(64)], images.format.levels, "digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The digits of the demo, trained for a little while."""
    out = tmp_path_factory.mktemp("digits") / "run"
    config = with_training(
        ddpm.get_preset("digits"), steps=100, batch_size=32, sample_every=0, warmup=40
    )
    with one_thread():
        ddpm.train(config, digits(), out)
    return out


def theirs(folder, model, monkeypatch):
    """What the pipeline of diffusers draws from our noises of seed 0."""
    noise, total = model.noise(torch.arange(IMAGES), 0), model.diffusion.num_timesteps
    left = iter([total, *range(total - 1, 0, -1)])

    def ours(shape, **options):
        drawn = noise(next(left))
        assert tuple(shape) == tuple(drawn.shape)
        return drawn

    for module in ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", ours)
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(batch_size=IMAGES, num_inference_steps=total, output_type="np").images
    assert next(left, None) is None
    return drawn


@pytest.mark.slow
def test_diffusers_draws_what_we_draw_and_the_weights_come_back(run, tmp_path, monkeypatch):
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["export", str(run), "--out", str(out)]) == 0
    model = ddpm.load(run, "cpu", precision="fp32")
    drawn_here = tmp_path / "drawn"
    argv = ["sample", run, "-n", IMAGES, "--precision", "fp32", "--out", drawn_here]
    assert main([str(word) for word in argv]) == 0
    pixels = [np.asarray(Image.open(path)) for path in sorted(drawn_here.glob("*.png"))]
    ours = model.format.from_bytes(np.stack(pixels)[:, None])
    levels = model.format.levels - 1
    drawn = np.rint(theirs(out, model, monkeypatch).transpose(0, 3, 1, 2) * levels)
    assert ours.shape == drawn.shape
    assert abs(ours - drawn).max() <= 1
    assert (ours == drawn).mean() > 0.99
    assert ours.std() > 1  # and it is a picture

    assert main(["import", str(out), "--out", str(back)]) == 0
    again = ddpm.load(back, "cpu")
    expected = model.network.state_dict()
    assert all(
        torch.equal(value, expected[key]) for key, value in again.network.state_dict().items()
    )
    assert again.config.network == model.config.network
    assert again.config.diffusion == model.config.diffusion
    assert again.format == model.format
    assert np.array_equal(again.sample(IMAGES, seed=0).numpy(), ours)


@pytest.mark.slow
def test_the_model_card_says_what_is_known(run, tmp_path):
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for word in ("library_name: diffusers", "digits", "100 steps", "17 grey levels", "fixed_large"):
        assert word in card
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_training_goes_on_from_an_imported_model(run, tmp_path):
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out"), "--out", str(tmp_path / "back")]) == 0
    settings = {
        "steps": 2,
        "save_every": 2,
        "sample_every": 0,
        "last_stage_steps": 2,
        "start_from": str(tmp_path / "back"),
    }
    config: Config = with_training(ddpm.get_preset("digits"), lr=1e-9, ema_decay=0.0, **settings)
    result = ddpm.train(config, digits(), tmp_path / "on")
    begun = ddpm.load(tmp_path / "back", "cpu").network.state_dict()
    for key, value in ddpm.load(result.checkpoint, "cpu").network.state_dict().items():
        assert torch.allclose(value, begun[key], atol=1e-6)
    assert json.loads((tmp_path / "on" / "config.json").read_text())["training"]["start_from"]
