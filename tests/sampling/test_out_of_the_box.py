"""Samples with no option set: right wherever the answer is known, for every model and any steps."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddpm.config import Config, DataConfig, DiffusionConfig
from ddpm.data.images import ImageFormat
from ddpm.diffusion.schedule import SCHEDULES
from ddpm.errors import DdpmError
from ddpm.likelihood.plan import Plan
from ddpm.model import Ddpm
from ddpm.sampling import Ddim
from ddpm.training.presets import get_preset
from ddpm.training.state import TrainingState
from ddpm.training.step import TrainingStep
from helpers import measured_model, tiny_config, tiny_images, tiny_model, with_training
from typecheck import unchecked

pytestmark = pytest.mark.slow  # many members


MEAN, STD = 0.2, 0.25  # of every pixel of the images that the networks here know
WILD = 4.1  # the spread of pixels that are all black or white, in units of STD
FORMAT = ImageFormat(1, 8, 8)
SAMPLERS = {
    "ancestral": "ancestral",
    "ddim": "ddim",
    "ddim-eta-1": Ddim(1.0),
    "dpm-solver": "dpm-solver",
    "langevin": "langevin",
}
PREDICTIONS = ("epsilon", "sample", "v_prediction", "previous_mean")
BLIND = ("epsilon", "previous_mean")  # they cannot tell x_0 from pure noise


class Exact(nn.Module):
    """The network that training would end with: the best answer for these images, at any time."""

    def __init__(self, diffusion):
        super().__init__()
        self.diffusion = diffusion
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x, t):
        wide = x.double()
        a = torch.from_numpy(self.diffusion.schedule.alphas_cumprod.copy())[t]
        a = a.reshape(-1, 1, 1, 1)
        gain = a.sqrt() * STD**2 / (a * STD**2 + 1 - a)
        x_start = MEAN + gain * (wide - a.sqrt() * MEAN)
        return self.diffusion.from_xstart(x_start, wide, t).to(x.dtype)


def exact_model(**diffusion):
    """A model whose network is exact; a `DdpmError` where it could not be trained."""
    config = Config(
        data=DataConfig(image_size=8, channels=1), diffusion=DiffusionConfig(**diffusion)
    )
    return Ddpm(config, FORMAT, Exact(config.diffusion.build()))


def moments(model, sampler, steps, n=16):
    """Mean and standard deviation of samples in units of the images' own; finite at every step."""

    def look(state):
        where = f"{steps} steps, timestep {state.timestep}"
        assert state.x_t.isfinite().all(), where
        assert state.pred_xstart.isfinite().all(), where

    plan = Plan() if steps is None else Plan(steps)
    with unchecked():  # the types of a step are checked elsewhere, and here are 20,000 steps
        images = model.sample(n, sampler=sampler, plan=plan, callback=look)
    x = model.format.to_unit(images).double()
    return float(x.mean()), float(x.std()) / STD


def moments_or_refused(model, sampler, steps, may_refuse):
    """The same; None where few steps are refused in a sentence, if they may be."""
    try:
        return moments(model, SAMPLERS[sampler], steps)
    except DdpmError:
        if not may_refuse:
            raise
        return None


COMBINATIONS = [
    pytest.param(schedule, prediction, sampler, id=f"{schedule}-{prediction}-{sampler}")
    for schedule in SCHEDULES
    for prediction in PREDICTIONS
    if schedule != "learned"  # is trained with another loss
    if schedule != "jsd" or prediction not in BLIND  # refused before it is trained
    for sampler in SAMPLERS
]


@pytest.mark.parametrize(("schedule", "prediction", "sampler"), COMBINATIONS)
def test_few_steps_give_images_and_ten_or_more_give_the_right_ones(schedule, prediction, sampler):
    model = exact_model(schedule=schedule, prediction_type=prediction)
    # A mean of one step of the whole chain is none of a longer step; Langevin needs an abar_T.
    may_refuse = prediction == "previous_mean" or (schedule == "jsd" and sampler == "langevin")
    expected = [(1, 0, WILD), (2, 0, WILD), (10, 0.45, 1.5), (50, 0.7, 1.35)]
    thorough = prediction == ("sample" if schedule == "jsd" else "epsilon")
    for steps, low, high in expected if thorough else expected[:3]:
        found = moments_or_refused(model, sampler, steps, may_refuse)
        if found is None:
            continue
        mean, spread = found
        if sampler == "langevin":  # five corrections a level, and 50 levels at least, it needs
            low, high = (0, WILD) if steps < 50 else (0.7, 1.6)
        slack = 0.05 if high < WILD else 0.35
        assert mean == pytest.approx(MEAN, abs=slack), f"{steps} steps: the mean is {mean:.2f}"
        assert low <= spread <= high, f"{steps} steps: the spread is {spread:.2f} of the images'"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_all_steps_give_the_right_images(prediction, sampler):
    model = exact_model(timesteps=50, beta_end=0.3, prediction_type=prediction)
    mean, spread = moments(model, SAMPLERS[sampler], None)
    assert mean == pytest.approx(MEAN, abs=0.05)
    assert 0.8 <= spread <= (1.5 if sampler == "langevin" else 1.25)
    assert moments(model, SAMPLERS[sampler], 50) == (mean, spread)  # asked for, they are the same


STEEP = {
    "linear to 0.2": {"beta_end": 0.2},
    "linear to 0.5": {"beta_end": 0.5},
    "linear to 1": {"beta_end": 1.0},
    "linear to 1 in 20": {"beta_end": 1.0, "timesteps": 20},
    "const 0.1": {"schedule": "const", "beta_end": 0.1},
    "const 0.5": {"schedule": "const", "beta_end": 0.5},
    "const 0.9": {"schedule": "const", "beta_end": 0.9},
    "quad to 0.5": {"schedule": "quad", "beta_end": 0.5},
    "warmup10 to 0.5": {"schedule": "warmup10", "beta_end": 0.5},
    "warmup50 to 1": {"schedule": "warmup50", "beta_end": 0.999},
    "sigmoid to 0.5": {"schedule": "sigmoid", "beta_end": 0.5},
    "jsd in 50": {"schedule": "jsd", "timesteps": 50},
    "cosine in 4000": {"schedule": "cosine", "timesteps": 4000},
    "0.999 a hundred times": {"betas": (0.999,) * 100},
    "own, ends in 1": {"betas": (0.1, 0.3, 0.5, 0.7, 1.0)},
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", STEEP)
def test_what_can_be_trained_can_be_sampled_however_steep(name, sampler):
    for prediction in PREDICTIONS:
        try:
            model = exact_model(prediction_type=prediction, **STEEP[name])
        except DdpmError:
            assert prediction in BLIND  # refused before anybody trains it
            continue
        for steps in (1, 2, 5, 20):
            if steps > model.diffusion.num_timesteps:
                continue
            may_refuse = sampler == "langevin" or prediction == "previous_mean"
            found = moments_or_refused(model, sampler, steps, may_refuse)
            if found is None:
                continue
            mean, spread = found
            said = f"{prediction}, {steps} steps: {mean:.2f}, {spread:.2f}"
            rough = prediction in BLIND or sampler == "langevin"
            assert mean == pytest.approx(MEAN, abs=0.5 if rough else 0.1), said
            assert spread <= (WILD if rough else 1.6), said


@pytest.fixture(scope="module")
def measured():
    """The exact model of the paper's chain, with its denoising error measured."""
    model = exact_model()
    pixels = MEAN + STD * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model.measure(FORMAT.from_unit(pixels))
    return model


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_a_measured_model_does_at_least_as_well(measured, sampler, steps):
    mean, spread = moments(measured, SAMPLERS[sampler], steps)
    wild = sampler == "langevin" and steps < 50
    assert mean == pytest.approx(MEAN, abs=0.35 if wild else 0.05)
    low, high = (0, WILD) if wild else (0.8, 1.25) if sampler == "ancestral" else (0.4, 2)
    assert low <= spread <= high


# -- what an option that is left out means -------------------------------------------------------


def test_the_bits_of_a_measured_model_are_those_of_the_optimal_steps_and_the_analytic_variance():
    model, images, explicit = measured_model(), tiny_images(6), Plan(5, "optimal", "analytic")
    assert model.bits_per_dim(images, plan=Plan(5)) == model.bits_per_dim(images, plan=explicit)


@pytest.mark.parametrize("steps", [1, 3, 10, 19])
def test_samples_of_a_measured_model_take_the_analytic_variance(steps):
    model = measured_model()
    images, explicit = model.sample(4, plan=Plan(steps)), Plan(steps, "smooth", "analytic")
    assert torch.equal(images, model.sample(4, plan=explicit))


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver", "unipc", "heun"])
def test_samplers_without_noise_take_the_smooth_steps_of_a_measured_model(sampler):
    for model, name in ((measured_model(), "smooth"), (tiny_model(), "quadratic")):
        images, explicit = (
            model.sample(4, sampler=sampler, plan=p) for p in (Plan(4), Plan(4, name))
        )
        assert torch.equal(images, explicit)


@pytest.mark.parametrize("own", ["fixed_small", "fixed_large", "learned", "learned_range"])
def test_few_steps_of_an_unmeasured_model_take_the_small_variance_unless_it_learned_one(own):
    config = replace(tiny_config(), diffusion=DiffusionConfig(timesteps=20, variance_type=own))
    network = config.build_network((1, 8, 8)).requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = Ddpm(config, FORMAT, network)
    best = own if own.startswith("learned") else "fixed_small"
    known = [Plan(5, name, best) for name in ("even", "quadratic")]
    images = model.sample(4, plan=Plan(5))
    assert any(torch.equal(images, model.sample(4, plan=plan)) for plan in known)


@pytest.mark.parametrize("make", [tiny_model, measured_model], ids=["unmeasured", "measured"])
def test_all_steps_keep_the_models_own_variance(make):
    model = make()
    for plan in (Plan(), Plan(20)):
        assert model.chain(plan).variance_type == "fixed_large"
        assert model.chain(plan).num_timesteps == 20


@pytest.mark.parametrize("trajectory", ["even", "quadratic", "optimal", (0, 5, 19)])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "analytic"])
def test_what_is_asked_for_is_what_happens(trajectory, variance):
    model = measured_model()
    steps = 3 if isinstance(trajectory, str) else None
    chain = model.chain(Plan(steps, trajectory, variance))
    assert (chain.num_timesteps, chain.variance_type) == (3, variance)


def test_steps_and_eta_can_be_given_to_sample_itself():
    model = measured_model()
    assert torch.equal(model.sample(2, steps=5), model.sample(2, plan=Plan(5)))
    few = model.sample(2, sampler="ddim", steps=5)
    assert torch.equal(few, model.sample(2, sampler=Ddim(), plan=Plan(5)))
    noisy = model.sample(2, sampler="ddim", eta=0.5, steps=5)
    assert torch.equal(noisy, model.sample(2, sampler=Ddim(0.5), plan=Plan(5)))


WRONG = {
    "eta without ddim": {"eta": 0.5},
    "eta of another sampler": {"sampler": "langevin", "eta": 0.5},
    "eta above 1": {"sampler": "ddim", "eta": 1.5},
    "eta below 0": {"sampler": "ddim", "eta": -0.1},
    "no steps": {"steps": 0},
    "more steps than there are": {"steps": 21},
    "steps and a plan of others": {"steps": 3, "plan": Plan(4)},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_sample_cannot_do_is_a_sentence(name):
    with pytest.raises(DdpmError):
        tiny_model().sample(1, **WRONG[name])


# -- the average of a young run ------------------------------------------------------------------


def averaged(decay, steps=30):
    """A weight after every step of a tiny run, and its average at the end."""
    config = with_training(tiny_config(), ema_decay=decay)
    state = TrainingState(config, ImageFormat(1, 8, 8, 17), torch.device("cpu"))
    step, images, name = TrainingStep(state), tiny_images(4).images, "conv_in.weight"
    weight, average = (n.get_parameter(name) for n in (state.network, state.ema.network))
    weights = [weight.detach().clone()]
    for _ in range(steps):
        step(images)
        weights.append(weight.detach().clone())
    return weights, average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.9999])
def test_the_average_warms_up(decay):
    weights, average = averaged(decay)

    def by_hand(first):
        shadow = weights[0].double()
        for n, weight in enumerate(weights[1:], start=first):
            d = min(decay, (1 + n) / (10 + n))
            shadow = d * shadow + (1 - d) * weight.double()
        return shadow

    off = min(float((by_hand(first) - average).abs().max()) for first in (0, 1))
    assert off < 1e-6


def test_a_young_runs_average_has_left_the_random_start_behind():
    weights, average = averaged(0.9999)
    assert (average - weights[-1]).norm() < 0.5 * (weights[0] - weights[-1]).norm()


def test_the_papers_preset_keeps_its_decay():
    decay = get_preset("cifar10").training.ema_decay
    assert decay == 0.9999
    assert math.isclose(min(decay, (1 + 800_000) / (10 + 800_000)), decay)
