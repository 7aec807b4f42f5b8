"""The verbs of a model: samples that do not depend on the batch, bits/dim, chains."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import schedule_from_betas
from ddpm.errors import DdpmError
from ddpm.likelihood.denoising_error import measured_timesteps
from ddpm.likelihood.plan import Plan
from ddpm.loading import load
from ddpm.runtime.device import resolve_precision
from ddpm.sampling import Ddim, Langevin
from helpers import measured_model, tiny_images, tiny_model


@pytest.mark.parametrize("options", [{}, {"sampler": Ddim(eta=0.5), "plan": Plan(7)}])
def test_the_ith_sample_is_the_same_in_any_batch(options):
    model = tiny_model()
    whole = model.sample(9, seed=3, batch_size=9, **options)
    assert whole.dtype == torch.uint8
    assert int(whole.max()) <= 16
    for size in (1, 4):
        assert torch.equal(model.sample(9, seed=3, batch_size=size, **options), whole)
    assert torch.equal(model.sample(5, seed=3, **options), whole[:5])
    assert not torch.equal(model.sample(9, seed=4, **options), whole)


def test_every_chain_can_be_evaluated_once_the_error_is_measured():
    model, images = measured_model(), tiny_images().images
    for variance in (None, "fixed_small", "analytic"):
        for trajectory in ("even", "quadratic", "optimal"):
            bound = model.bound(images, plan=Plan(6, trajectory, variance))
            assert len(bound.timesteps) == 6
            assert bound.mean > 0
    assert model.bits_per_dim(images) == pytest.approx(model.bound(images).mean)
    few = model.sample(2, plan=Plan(5, "optimal", "analytic"))
    assert few.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"sampler": "magic"}, "unknown sampler"),
        ({"plan": Plan(21)}, r"1\.\.20"),
        ({"plan": Plan(variance="learned")}, "cannot use"),
        ({"plan": Plan(3, "optimal")}, "has not been measured.*ddpm measure"),
        ({"plan": Plan(variance="analytic")}, "has not been measured"),
    ],
)
def test_bad_requests_give_a_sentence(options, words):
    with pytest.raises(DdpmError, match=words):
        tiny_model().sample(**{"n": 1, **options})


def test_images_that_do_not_fit_are_refused():
    model = tiny_model()
    with pytest.raises(DdpmError, match="shape"):
        model.bound(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(DdpmError, match=r"grey levels 0\.\.16.*have 200"):
        model.bound(torch.full((2, 1, 8, 8), 200, dtype=torch.uint8))


def test_the_network_may_be_bf16_but_what_comes_out_is_float32():
    model = tiny_model(precision="bf16")
    x = torch.randn(2, 1, 8, 8)
    output = model.denoiser()(x, torch.tensor([1, 2]))
    exact = tiny_model(precision="fp32").denoiser()(x, torch.tensor([1, 2]))
    assert output.dtype == torch.float32
    relative = float((output - exact).norm() / exact.norm())
    assert 1e-5 < relative < 0.05
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"


def test_a_bf16_network_sees_differences_that_bf16_would_round_away():
    network = tiny_model(precision="bf16").network
    seen = []
    network.down[0][0].register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    x = torch.full((1, 1, 8, 8), 0.8984375)
    with torch.autocast("cpu", torch.bfloat16):
        for value in (x, x + 1e-3):
            network(value, torch.tensor([0]))
    assert torch.equal(x.bfloat16(), (x + 1e-3).bfloat16())
    assert seen[0].dtype == torch.bfloat16
    assert not torch.equal(*seen)


@pytest.mark.parametrize(("sampler", "calls"), [(Langevin(corrections=3), 3), ("ddim", 1)])
def test_progress_counts_network_calls_where_they_are_made(sampler, calls):
    model, made, told = tiny_model(), [], []
    model.network.register_forward_hook(lambda *_: made.append(1))
    model.sample(
        10,
        sampler=sampler,
        plan=Plan(4),
        batch_size=4,
        progress=lambda done, total, label: told.append((done, total, label)),
    )
    assert len(made) == 3 * 4 * calls
    assert told[0] == (0, len(made), "sampling")
    assert told[-1] == (len(made), len(made), "sampling")


def test_a_sampler_of_ones_own_is_any_function_of_that_signature():
    def straight(diffusion, denoiser, x, noise, *, start=None, callback=None):
        t = torch.full((len(x),), diffusion.num_timesteps - 1)
        return diffusion.p_mean_variance(denoiser, x, t).pred_xstart

    model, told = tiny_model(), []
    images = model.sample(3, sampler=straight, progress=lambda *seen: told.append(seen))
    assert images.shape == (3, 1, 8, 8)
    assert told[-1][0] == 1


def test_measuring_again_renews_the_chains_that_were_made_with_the_old_error():
    model = measured_model(8)
    before = model.chain(Plan(5, "optimal", "analytic"))
    model.measure(tiny_images(30, seed=4))
    after = model.chain(Plan(5, "optimal", "analytic"))
    t = torch.tensor([2])
    x = torch.zeros(1, 1, 8, 8)
    assert not torch.equal(before.analytic_variance(t, x), after.analytic_variance(t, x))


def test_a_model_trained_in_bf16_is_not_held_to_it_on_a_processor(tmp_path):
    model = tiny_model()
    training = replace(model.config.training, precision="bf16")
    model = replace(model, config=replace(model.config, training=training), precision=None)
    assert model.precision == "bf16"
    model.save(tmp_path / "m.safetensors")
    here = load(tmp_path / "m.safetensors", device="cpu")
    assert (here.precision, here.config.training.precision) == ("auto", "bf16")
    assert load(tmp_path / "m.safetensors", "cpu", "bf16").precision == "bf16"
    images = tiny_images(2).images
    exact = replace(here, precision="fp32")
    assert np.array_equal(here.bound(images).total, exact.bound(images).total)


def test_a_precision_is_of_the_model_that_is_loaded_and_not_of_how_it_was_trained(tmp_path):
    tiny_model().save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors", precision="bf16")
    assert model.precision == "bf16"
    assert model.config.training.precision == "auto"
    model.save(tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors").precision == "auto"


# -- one file ------------------------------------------------------------------------------------


def everything(model, images):
    """What a model can do, as numbers."""
    plan = Plan(5, "optimal", "analytic")
    data = model.compress(list(images))
    assert all(map(torch.equal, model.decompress(data).images, images))
    return model.sample(3, plan=plan), model.bound(images, plan=plan).total.tolist(), data


def test_a_copy_of_the_file_in_an_empty_read_only_folder_does_all_that_the_original_did(
    tmp_path, monkeypatch
):
    model, images = measured_model(), tiny_images(6).images
    model.save(tmp_path / "model.safetensors")
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(tmp_path / "model.safetensors", place / "copy.safetensors")
    place.chmod(0o555)
    monkeypatch.chdir(place)
    try:
        samples, bits, data = everything(load("copy.safetensors"), images)
    finally:
        place.chmod(0o755)
    assert [path.name for path in place.iterdir()] == ["copy.safetensors"]
    mine = everything(load(tmp_path / "model.safetensors"), images)
    assert torch.equal(samples, mine[0])
    assert bits == mine[1]
    assert data == mine[2]


def test_others_may_read_what_is_written(tmp_path):
    before = os.umask(0o022)
    try:
        tiny_model().save(tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o644


def test_no_verb_opens_the_training_data(tmp_path, monkeypatch):
    measured_model().save(tmp_path / "m.safetensors")

    def refuse(*_, **__):
        raise AssertionError("the training data were opened")

    monkeypatch.setattr("ddpm.data.open.open_data", refuse)
    monkeypatch.setattr("ddpm.data.open_data", refuse)
    everything(load(tmp_path / "m.safetensors"), tiny_images(4).images)


def test_a_model_that_was_not_measured_says_how_to_measure_it(tmp_path):
    model = tiny_model()
    for verb in (lambda: model.compress([]), lambda: model.decompress(b"")):
        with pytest.raises(DdpmError, match=r"measure it once .* model\.measure\(images\)"):
            verb()


def test_the_denoising_error_is_small_beside_the_weights_of_a_large_model():
    """About 130 rows of float32, where every timestep in float64 took 15 times as much."""
    rows = len(measured_timesteps(1000))
    assert 120 < rows < 140
    stored = sum(t.nbytes for t in measured_model().denoising_error.tensors().values())
    calibration = 2 * 64 * 4 + 20 * (5 + 3 + 2) * 4
    spectral = 20 * (64 * 4 + 8 + 5 * 4)
    assert stored < 20 * (64 * 4 + 8 + 8) + calibration + spectral + 100


def test_the_betas_in_the_file_are_those_that_are_used(tmp_path):
    betas = np.linspace(0.01, 0.3, 20)
    model = replace(tiny_model(), diffusion=GaussianDiffusion(schedule_from_betas(betas)))
    model.save(tmp_path / "m.safetensors")
    found = load(tmp_path / "m.safetensors").diffusion.schedule.betas
    assert np.array_equal(found, betas)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_without_images_is_refused(size):
    images = tiny_images().images
    with pytest.raises(DdpmError, match=f"batch_size must be at least 1, got {size}"):
        tiny_model().bound(images, batch_size=size)
    with pytest.raises(DdpmError, match=f"batch_size must be at least 1, got {size}"):
        tiny_model().measure(images, batch_size=size)
    with pytest.raises(DdpmError, match=f"number of images must be at least 1, got {size}"):
        tiny_model().measure(images, count=size)
