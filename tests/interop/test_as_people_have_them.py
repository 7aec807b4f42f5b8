"""Folders as people have them: training checkpoints, averages beside raw weights, settings left
out; and what is said of an imported model afterwards."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from PIL import Image

import ddpm
from ddpm.cli import main
from ddpm.sampling import Ddim
from helpers import BRIEFLY
from interop.google_forms import (
    SCHEDULER,
    SMALL,
    random_unet,
    write_json,
    write_pipeline,
)
from mistakes import everything_below, refused

COSINE = SCHEDULER | {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}


def pipeline(folder, settings=SMALL, scheduler=SCHEDULER, seed=0):
    """A pipeline of a small network, and that network."""
    network = random_unet(settings, seed)
    return write_pipeline(folder, network, settings, scheduler), network


def imported(source, out, *options):
    """The model that a source becomes."""
    assert main(["import", str(source), "--out", str(out), *options]) == 0
    return ddpm.load(out, "cpu")


def same_weights(model, theirs):
    return torch.equal(model.network.conv_in.weight, theirs.conv_in.weight)


@pytest.mark.parametrize("inner", ["checkpoint-500", "checkpoint-500/unet_ema"])
def test_a_checkpoint_inside_a_pipeline_has_its_scheduler(inner, tmp_path, capsys):
    """As diffusers' example of training leaves them."""
    source, _ = pipeline(tmp_path / "out", scheduler=COSINE)
    averaged = random_unet(SMALL, 7)
    averaged.save_pretrained(source / "checkpoint-500" / "unet_ema")
    shutil.copytree(source / "unet", source / "checkpoint-500" / "unet")
    model = imported(source / inner, tmp_path / "run")
    assert "the pipeline around it" in capsys.readouterr().out
    assert model.config.diffusion.prediction_type == "sample"
    assert model.config.diffusion.schedule == "cosine"
    assert same_weights(model, averaged)
    assert model.history.origin == f"out/{inner}"


def test_averages_beside_the_weights_of_a_pipeline_are_taken_and_said(tmp_path, capsys):
    source, raw = pipeline(tmp_path / "out")
    averaged = random_unet(SMALL, 7)
    averaged.save_pretrained(source / "unet_ema")
    model = imported(source, tmp_path / "run")
    assert "averaged ones (unet_ema)" in capsys.readouterr().out
    assert same_weights(model, averaged)
    assert not same_weights(model, raw)


def test_one_setting_that_is_told_does_not_change_the_others(tmp_path, capsys):
    settings = SMALL | {"sample_size": 64}
    random_unet(settings).save_pretrained(tmp_path / "unet")
    untold = imported(tmp_path / "unet", tmp_path / "a")
    assert "paper's is assumed" in capsys.readouterr().out
    told = imported(tmp_path / "unet", tmp_path / "b", "--diffusion.beta-end=0.03")
    assert "as told, and the paper's for the rest" in capsys.readouterr().out
    assert untold.config.diffusion == ddpm.DiffusionConfig(variance_type="fixed_small")
    assert told.config.diffusion == ddpm.DiffusionConfig(variance_type="fixed_small", beta_end=0.03)
    flag = imported(tmp_path / "unet", tmp_path / "c", "--diffusion.no-clip-sample")
    assert not flag.diffusion.clip_sample


def test_a_size_that_nothing_says_is_told_and_one_that_is_said_is_not(tmp_path, capsys):
    network = random_unet(SMALL)
    unsaid = write_pipeline(tmp_path / "unsaid", network, SMALL | {"sample_size": None})
    argv = ["import", unsaid, "--out", tmp_path / "run"]
    refused(argv, capsys, "'sample_size'", "--image-size")
    assert imported(unsaid, tmp_path / "run", "--image-size", "16").format.shape == (3, 16, 16)
    said = write_pipeline(tmp_path / "said", network, SMALL)
    argv = ["import", said, "--out", tmp_path / "other", "--image-size", 16]
    refused(argv, capsys, "--image-size has no effect")


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_a_step_of_the_schedulers_as_they_are_with_what_the_network_says(kind, learned, tmp_path):
    """Theirs computes in float32, which tells at small t only."""
    settings = SMALL | {"out_channels": 6 if learned else 3}
    variance = {"variance_type": "learned_range" if learned else "fixed_small"}
    source, network = pipeline(tmp_path / "theirs", settings, SCHEDULER | variance)
    model = ddpm.load(source, "cpu")
    x, theirs = torch.randn(2, 3, 8, 8), kind.from_config(SCHEDULER | variance)
    for t, tolerance in ((999, 1e-5), (500, 1e-5), (100, 1e-5), (1, 5e-4)):
        with torch.no_grad():
            output = network(x, t).sample
        times = torch.tensor([t, t])
        if kind is DDPMScheduler:
            noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(t))
            expected = theirs.step(output, t, x, generator=torch.Generator().manual_seed(t))
            p = model.diffusion.p_mean_variance(model.denoiser(), x, times)
            found = p.mean + (0.5 * p.log_variance).exp() * noise
        else:
            theirs.set_timesteps(1000)
            clipped = {"use_clipped_model_output": True}
            expected = theirs.step(output[:, :3], t, x, **clipped)
            taken = []
            steps = Ddim()
            steps(model.diffusion, model.denoiser(), x, lambda i: x, start=t, callback=taken.append)
            found = taken[1].x_t
        difference = (expected.prev_sample - found).abs().max() / found.abs().max()
        assert float(difference) < tolerance


# -- what is said of an imported model -----------------------------------------------------------


def pictures(folder, count=12):
    """Random pictures in colour, without any that look held out."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def card_of(model, out):
    """The model card that goes out with a run."""
    assert main(["export", str(model), "--out", str(out)]) == 0
    return (out / "README.md").read_text(encoding="utf-8")


def test_the_card_says_whose_weights_they_are_also_after_training(tmp_path, capsys):
    source, _ = pipeline(tmp_path / "theirs")
    imported(source, tmp_path / "run")
    assert "| weights | imported from theirs |" in card_of(tmp_path / "run", tmp_path / "a")
    small = [*("--network.ch", "8", "--network.ch-mult", "1", "2", "--network.norm-groups", "4")]
    small += ["--network.num-res-blocks", "1", "--network.attn-resolutions", "4"]
    argv = ["train", "cifar10", "--data", pictures(tmp_path / "pets"), "--out", tmp_path / "on"]
    argv += ["--data.image-size", "8", "--training.start-from", tmp_path / "run"]
    argv += ["--training.steps", "2", "--training.batch-size", "2", "--training.sample-every", "0"]
    sentence = refused(argv, capsys, "of another network")
    for differs in ("--network.ch 8", "--network.ch-mult 1 2", "--network.num-res-blocks 1"):
        assert differs in sentence
    assert main([str(word) for word in (*argv, *small)]) == 0
    card = card_of(tmp_path / "on", tmp_path / "b")
    assert "| training began from | theirs |" in card
    assert "4 images seen since then" in card


def test_what_is_advised_can_be_done(tmp_path, capsys):
    source, _ = pipeline(tmp_path / "theirs")
    imported(source, tmp_path / "run")
    said = capsys.readouterr().out
    assert "compression, the best few steps and bits/dim need that" in said
    pets = pictures(tmp_path / "pets")
    assert (
        main(["measure", str(tmp_path / "run"), *BRIEFLY, "--data", str(pets), "--timesteps", "3"])
        == 0
    )
    argv = ["evaluate", tmp_path / "run", "--bpd", "--steps", "2"]
    sentence = refused(argv, capsys, "no held-out images", "--split train")
    assert "hold-out" not in sentence  # which is a setting of training
    assert main([str(word) for word in (*argv, "--split", "train")]) == 0

    learned, _ = pipeline(
        tmp_path / "learned",
        SMALL | {"out_channels": 6},
        SCHEDULER | {"variance_type": "learned_range"},
    )
    capsys.readouterr()
    imported(learned, tmp_path / "b")
    assert "compression" not in capsys.readouterr().out


def test_nothing_is_written_into_other_peoples_folders(tmp_path, monkeypatch, capsys):
    source, _ = pipeline(tmp_path / "models" / "theirs")
    before = everything_below(source)
    pets = pictures(tmp_path / "pets")
    argv = ["evaluate", source, "--bpd", "--steps", "2", "--split", "train", "--data", pets]
    assert main([str(word) for word in argv]) == 0
    assert everything_below(source) == before
    assert any((tmp_path / "models" / "evaluation").iterdir())


def test_weights_that_no_command_reads_are_sent_to_the_import(tmp_path, capsys):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    refused(["sample", tmp_path / "plain.pt"], capsys, "ddpm import")
    refused(["sample", "google/ddpm-cifar10-32"], capsys, "ddpm import")
    source, _ = pipeline(tmp_path / "theirs")
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    argv = ["compress", source, tmp_path / "one.png", "-o", tmp_path / "x.ddpm"]
    refused(argv, capsys, "ddpm measure RUN", "--data")


def test_the_export_is_one_that_others_may_read(tmp_path):
    source, _ = pipeline(tmp_path / "theirs")
    imported(source, tmp_path / "run")
    card_of(tmp_path / "run", tmp_path / "out")
    weights = tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors"
    settings = tmp_path / "out" / "unet" / "config.json"
    assert weights.stat().st_mode == settings.stat().st_mode
    assert json.loads(settings.read_text())["sample_size"] == 8
    write_json(tmp_path / "out" / "more.json", {})  # and may be added to
