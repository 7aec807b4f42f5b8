"""Images, noise and times that do not fit: one sentence from every door, never another result."""

from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch

import ddpm
from ddpm.diffusion.gaussian import PredictionType
from ddpm.errors import DdpmError
from ddpm.training.loop import SHOWS
from helpers import tiny_images, tiny_model, with_training
from typecheck import unchecked

T = 20
DIFFUSION = ddpm.GaussianDiffusion(ddpm.make_schedule(timesteps=T, beta_end=0.2))
X = torch.zeros(4, 1, 8, 8)
GOOD = torch.tensor([0, 5, 9, T - 1])


def network(x, t):
    """Noise that is 0."""
    return torch.zeros_like(x)


def from_output(diffusion, x, t):
    """What an output of a network stands for."""
    return diffusion.to_xstart(x, X, t)


def to_output(diffusion, x, t):
    """The inverse."""
    return diffusion.from_xstart(x, X, t)


DOORS = {
    "q_sample": lambda x, t: DIFFUSION.q_sample(x, t, torch.zeros(4, 1, 8, 8)),
    "q_mean_variance": DIFFUSION.q_mean_variance,
    "posterior": lambda x, t: DIFFUSION.q_posterior_mean_variance(x, X, t),
    "xstart": lambda x, t: DIFFUSION.xstart_from_epsilon(x, X, t),
    "epsilon": lambda x, t: DIFFUSION.epsilon_from_xstart(x, X, t),
    **{
        f"{name} {kind}": partial(convert, replace(DIFFUSION, prediction_type=kind))
        for kind in get_args(PredictionType)
        for name, convert in (("from", from_output), ("to", to_output))
    },
    "p": lambda x, t: DIFFUSION.p_mean_variance(network, x, t),
    "loss": lambda x, t: ddpm.training_loss(DIFFUSION, network, x, t, torch.zeros(4, 1, 8, 8)),
}
TIMES = {
    "negative": (torch.tensor([0, 1, 2, -1]), "0..19, where 0 is the first step .* got -1"),
    "too large": (torch.tensor([0, 1, 2, T]), "0..19, .* got 20"),
    "a fraction": (torch.full((4,), 1.5), r"whole numbers, .* got float32 \[4\]"),
    "not a number": (torch.full((4,), torch.nan), "whole numbers"),
    "truth values": (torch.ones(4, dtype=torch.bool), "whole numbers, .* got bool"),
    "short numbers": (torch.ones(4, dtype=torch.int16), "whole numbers, .* got int16"),
    "bytes": (torch.ones(4, dtype=torch.uint8), "whole numbers, .* got uint8"),
    "one for all": (torch.tensor(5), r"one for each image, .* got int64 \[\]"),
    "too few": (torch.tensor([5]), r"torch.full\(\(4,\), 5\), got int64 \[1\]"),
    "too many": (torch.arange(5), r"got int64 \[5\]"),
    "a number": (5, "got int 5"),
    "a list": ([1, 2, 3, 4], "got list"),
    "text": ("5", "got str '5'"),
    "nothing": (None, "got NoneType None"),
    "an array": (np.arange(4), "got ndarray"),
}
IMAGES = {
    "grey levels": (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"got uint8 .*`to_unit`"),
    "whole numbers": (torch.zeros(4, 1, 8, 8, dtype=torch.long), "floating-point .* got int64"),
    "an array": (np.zeros((4, 1, 8, 8), np.float32), "floating-point tensors .* got ndarray"),
    "another shape": (torch.zeros(4, 1, 8, 1), r"one shape .*\[4, 1, 8, 1\]"),
    "one for all": (torch.zeros(1, 1, 8, 8), r"one shape|torch.full\(\(1,\), 5\)"),
    "a number": (torch.tensor(0.0), "must be floating-point tensors"),
}


def test_what_fits_goes_through_every_door():
    for door in DOORS.values():
        assert door(X, GOOD) is not None
        assert door(X, GOOD.int()) is not None


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(("t", "words"), TIMES.values(), ids=TIMES)
def test_other_times_are_refused_by_every_door(door, t, words):
    with unchecked(), pytest.raises(DdpmError, match=words):
        door(X, t)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(("x", "words"), IMAGES.values(), ids=IMAGES)
def test_other_images_are_refused_by_every_door(request, door, x, words):
    alone = request.node.callspec.id.endswith(("-q_mean_variance", "-p"))
    if alone and words.startswith("one shape .*"):
        return  # nothing is there to differ from
    with unchecked(), pytest.raises(DdpmError, match=words):
        door(x, GOOD)


def test_noise_of_another_shape_is_not_spread_over_the_points():
    x = torch.zeros(4, 2)
    for noise in (torch.zeros(4, 1), torch.zeros(1, 2), torch.zeros(4, 3), torch.zeros(2)):
        with unchecked(), pytest.raises(DdpmError, match="one shape"):
            ddpm.training_loss(DIFFUSION, network, x, GOOD, noise)


@pytest.mark.parametrize("name", ["nope", None, 3, "VLB"])
def test_an_unknown_loss_or_prediction_is_not_another_one(name):
    with unchecked(), pytest.raises(DdpmError, match="must be one of simple, vlb, hybrid, got"):
        ddpm.training_loss(DIFFUSION, network, X, GOOD, X, name)
    if name:
        with unchecked(), pytest.raises(DdpmError, match="must be one of epsilon, sample"):
            DIFFUSION.from_xstart(X, X, GOOD, name)


@pytest.mark.parametrize(
    ("betas", "words"),
    [
        ([0.1, 1e-17, 0.1], r"betas\[1\] is 1e-17, so small that abar is the same"),
        ([1e-17, 0.1], "abar is 1 and x_1 has no noise in it"),
        (["a", "b"], "must be a vector of numbers, got"),
        ([[0.1], [0.1, 0.2]], "must be a vector of numbers, got"),
        (None, "betas must"),
        ([[0.1, 0.2]], "must be a vector"),
        ([10**400], "must be a vector of numbers"),
    ],
)
def test_betas_that_are_no_schedule(betas, words):
    with unchecked(), pytest.raises(DdpmError, match=words):
        ddpm.schedule_from_betas(betas)


def test_a_long_chain_may_end_where_abar_is_no_longer_a_number():
    for schedule in (
        ddpm.make_schedule(timesteps=80_000),
        ddpm.make_schedule("const", 3000, beta_end=0.3),
    ):
        assert schedule.alphas_cumprod[-1] < 1e-300
        assert (np.diff(schedule.alphas_cumprod) <= 0).all()


@pytest.mark.parametrize("timesteps", [1.5, "10", True, None])
def test_t_is_a_whole_number(timesteps):
    with unchecked(), pytest.raises(DdpmError, match="T must be a whole number, got"):
        ddpm.make_schedule(timesteps=timesteps)


@pytest.mark.parametrize("beta", ["a", None, float("nan"), -0.1])
def test_ends_that_are_no_variances(beta):
    with unchecked(), pytest.raises(DdpmError, match="betas need 0 < beta_start"):
        ddpm.make_schedule(beta_start=beta)


def test_log_signal_to_noise_ratios_are_a_public_way_to_a_schedule():
    values = [4.0, 1.0, -6.0]
    schedule = ddpm.schedule_from_log_snr(values)
    assert np.log(schedule.snr) == pytest.approx(values)
    with pytest.raises(DdpmError, match="must fall from step to step"):
        ddpm.schedule_from_log_snr([4.0, 5.0])
    with pytest.raises(DdpmError, match="so near each other, or so high"):
        ddpm.schedule_from_log_snr([35.0, 34.9999, 0.0])


@pytest.mark.parametrize("layer", [["middle2"], None, 3, {}])
def test_a_layer_that_is_no_name(layer):
    model = tiny_model()
    with unchecked(), pytest.raises(DdpmError, match="has no layer"):
        model.features(tiny_images(2), 3, layer)


def test_a_list_of_layers_is_no_layer_and_the_layers_are_listed():
    model = tiny_model()
    lists = [name for name in ("down", "up", "downsamples") if hasattr(model.network, name)]
    assert lists
    for name in lists:
        with pytest.raises(DdpmError, match=f"'{name}' is a list of layers.*{model.layers[0]}"):
            model.features(tiny_images(2), 3, name)
    for layer in model.layers:
        assert len(model.features(tiny_images(2), 3, layer)) == 2


def test_a_schedule_that_ends_with_the_image_in_sight_is_told_when_training(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("ddpm.training.loop.SHOWS", SHOWS)
    config = with_training(tiny_model().config, steps=1)
    for beta_end, words in ((0.02, "x_T still shows the image"), (0.5, None)):
        caplog.clear()
        diffusion = replace(config.diffusion, beta_end=beta_end)
        ddpm.train(replace(config, diffusion=diffusion), tiny_images(), tmp_path / str(beta_end))
        assert ("still shows" in caplog.text) == bool(words)
