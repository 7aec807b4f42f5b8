"""The verbs of a model: samples that do not depend on the batch, bits/dim, chains."""

import pytest
import torch

from ddpm.errors import DdpmError
from ddpm.runtime.device import resolve_precision
from helpers import tiny_images, tiny_model


@pytest.mark.parametrize("options", [{}, {"sampler": "ddim", "eta": 0.5, "steps": 7}])
def test_the_ith_sample_is_the_same_in_any_batch(options):
    model = tiny_model()
    whole = model.sample(9, seed=3, batch_size=9, **options)
    assert whole.dtype == torch.uint8
    assert int(whole.max()) <= 16
    for size in (1, 4):
        assert torch.equal(model.sample(9, seed=3, batch_size=size, **options), whole)
    assert torch.equal(model.sample(5, seed=3, **options), whole[:5])
    assert not torch.equal(model.sample(9, seed=4, **options), whole)


def test_every_chain_can_be_evaluated_and_the_errors_are_kept(monkeypatch):
    monkeypatch.setattr("ddpm.model.MEASURED_IMAGES", 40)
    model, images = tiny_model(), tiny_images().images
    for variance in (None, "fixed_small", "analytic"):
        for trajectory in ("even", "quadratic", "optimal"):
            bound = model.bound(images, steps=6, trajectory=trajectory, variance=variance)
            assert len(bound.timesteps) == 6
            assert bound.mean > 0
    assert model.errors() is model.errors()
    assert model.bits_per_dim(images) == pytest.approx(model.bound(images).mean)
    few = model.sample(2, steps=5, trajectory="optimal", variance="analytic")
    assert few.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"sampler": "magic"}, "unknown sampler"),
        ({"steps": 21}, r"1\.\.20"),
        ({"steps": 0}, r"1\.\.20"),
        ({"variance": "learned"}, "cannot use"),
        ({"steps": 3, "trajectory": "best"}, "unknown trajectory"),
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
    exact = tiny_model(precision="fp32").denoiser(x, torch.tensor([1, 2]))
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
