"""What a run starts from, and which timesteps it sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from ddpm.cli import main
from ddpm.errors import DdpmError
from ddpm.loading import load
from ddpm.runs.folder import RunFolder
from ddpm.runs.history import History
from ddpm.training import train
from ddpm.training.prepare import prepare_run
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep
from helpers import checkpoints, tiny_config, tiny_images, tiny_model, with_training


def run_of(prediction="epsilon", **training):
    """A run before its first step."""
    config = tiny_config(**training)
    config = replace(config, diffusion=replace(config.diffusion, prediction_type=prediction))
    return TrainingStep(TrainingState(config, tiny_model().format, torch.device("cpu")))


def drawn_times(n=4000, **settings):
    """The timesteps of the first images of a run, and the schedule."""
    step = run_of(**settings)
    return step.times(torch.arange(n)), step.diffusion.schedule


def shares(name, schedule, is_v=False):
    """How often each t should come."""
    weights = schedule.bound_weights * (schedule.alphas_cumprod if is_v else 1)
    bound, even = weights / weights.sum(), np.full(20, 1 / 20)
    return {"uniform": even, "bound": bound, "both": (even + bound) / 2}[name]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["uniform", "bound", "both"])
def test_every_timestep_comes_as_often_as_it_should(name, prediction):
    times, schedule = drawn_times(time_sampling=name, prediction=prediction)
    expected = shares(name, schedule, prediction == "v_prediction")
    counts = torch.bincount(times, minlength=20).numpy()
    assert counts.shape == (20,)
    assert chisquare(counts, expected * len(times)).pvalue > 1e-3
    assert expected.max() / expected.min() > (2 if name != "uniform" else 0)


@pytest.mark.parametrize("name", ["uniform", "bound", "both"])
def test_the_times_of_a_batch_can_be_spread_evenly(name):
    step = run_of(time_sampling=name, stratified_time=True, batch_size=64)
    expected, schedule = shares(name, step.diffusion.schedule), step.diffusion.schedule
    assert len(schedule.betas) == 20
    total, firsts = np.zeros(20), []
    for number in range(200):
        step.state.step = number
        times = step.times(torch.arange(64))
        counts = np.bincount(times.numpy(), minlength=20)
        assert (np.abs(counts - 64 * expected) < 1 + 1e-9).all()  # no luck in a single batch
        total += counts
        firsts.append(int(times[0]))
    np.testing.assert_allclose(total / total.sum(), expected, atol=2e-3)  # nor bias over many
    # No row of the batch, and so no image, has times of its own.
    assert chisquare(np.bincount(firsts, minlength=20), expected * 200).pvalue > 1e-3


@pytest.mark.parametrize("name", ["uniform", "bound"])
@pytest.mark.parametrize("stratified", [True, False])
def test_the_times_of_an_image_do_not_depend_on_who_computes_it(name, stratified):
    step = run_of(time_sampling=name, stratified_time=stratified, batch_size=12)
    step.state.step = 5
    whole = step.times(torch.arange(12))
    parts = [step.times(torch.arange(i, i + 3)) for i in range(0, 12, 3)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_average_loss_of_v_under_the_bounds_times_is_the_bound():
    times, schedule = drawn_times(n=200_000, time_sampling="bound", prediction="v_prediction")
    error = 0.3 + 0.7 * torch.arange(20).double() / 19  # of the noise, at each t
    weights, abar = torch.tensor(schedule.bound_weights), torch.tensor(schedule.alphas_cumprod)
    estimate = (weights * abar).sum() * (error / abar)[times].mean()
    assert float(estimate) == pytest.approx(float((weights * error).sum()), rel=5e-3)


def test_the_average_loss_under_the_bounds_times_is_the_bound():
    times, schedule = drawn_times(n=200_000, time_sampling="bound")
    error = 0.3 + 0.7 * torch.arange(20).double() / 19  # of the noise, at each t
    bound = (torch.from_numpy(schedule.bound_weights) * error).sum()
    estimate = schedule.bound_weights.sum() * error[times].mean()
    assert float(estimate) == pytest.approx(float(bound), rel=5e-3)


def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    trained = tiny_model()
    trained.history = History("noise", step=3, images=100, seconds=50.0)
    trained.save(tmp_path / "trained.safetensors")
    config = tiny_config(dropout=0.1, start_from=str(tmp_path / "trained.safetensors"), steps=2)
    state = prepare_run(config, tiny_images(), RunFolder(tmp_path / "run"), resume=False)
    assert (state.step, state.seconds) == (0, 0.0)
    weights = trained.network.state_dict()
    for network in (state.network, state.ema.network):
        for name, value in network.state_dict().items():
            assert torch.equal(value, weights[name]), name
    train(config, tiny_images(), tmp_path / "run")
    # Going on does not start again, not even if the file has gone.
    (tmp_path / "trained.safetensors").unlink()
    longer = with_training(config, steps=4)
    result = train(longer, tiny_images(), tmp_path / "run", resume=True)
    assert result.step == 4
    history = load(result.checkpoint).history
    assert (history.step, history.images, history.images_before) == (4, 100 + 4 * 4, 100)
    assert 50 < history.seconds == pytest.approx(50 + result.seconds)
    assert result.seconds < 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: replace(c, network=replace(c.network, ch=16)), "the same network settings"),
        (
            lambda c: replace(c, diffusion=replace(c.diffusion, variance_type="learned")),
            "another network",
        ),
        (
            lambda c: replace(c, diffusion=replace(c.diffusion, prediction_type="sample")),
            "predict 'epsilon', and this run trains 'sample'",
        ),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path, change, words):
    tiny_model().save(tmp_path / "trained.safetensors")
    config = change(tiny_config(start_from=str(tmp_path / "trained.safetensors")))
    with pytest.raises(DdpmError, match=words):
        train(config, tiny_images(), tmp_path / "run")
    assert not checkpoints(tmp_path / "run")


def test_a_missing_start_is_told_in_a_sentence(tmp_path, capsys):
    missing = str(tmp_path / "nothing")
    command = ["train", "digits", "--training.start-from", missing, "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert f"{missing} does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
