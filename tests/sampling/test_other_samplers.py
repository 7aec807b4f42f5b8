"""docs/other-samplers.md: a model in azula, k-diffusion and diffusers draws what it draws here."""

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from azula.guidance import DPSSampler
from azula.sample import DDIMSampler, DDPMSampler, EulerSampler, HeunSampler, xEABSampler
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from torch import nn

import ddpm
from ddpm.errors import DdpmError
from ddpm.model import Ddpm
from helpers import tiny_config, tiny_model

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import other_samplers
from other_samplers import ChainDenoiser, ChainSchedule, draw

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-samplers.md").read_text(encoding="utf-8")
FLOAT = 5e-5  # what rounding of float32 comes to in twenty steps
EVERY_50TH = tuple(range(49, 1000, 50))


def blocks(name):
    """The code of a section of the page; of its beginning by default."""
    section = next(part for part in PAGE.split("\n## ") if part.startswith(name))
    return re.findall(r"```python\n(.*?)```", section, flags=re.S)


@pytest.fixture(scope="module")
def model():
    """A trained one: four images of 32 x 32 pixels."""
    return ddpm.load("cifar10-small", precision="fp32")


@pytest.fixture(scope="module")
def noise(model):
    """What `model.sample(2, steps=20)` begins with."""
    return model.noise(torch.arange(2), 0)(20)


def few(model, clip=True, **kwargs):
    """The chain through every fiftieth timestep."""
    plan = ddpm.Plan(trajectory=EVERY_50TH, **kwargs)
    return replace(model.chain(plan), clip_sample=clip)


def walked(sampler, chain, model, x, noise=torch.zeros_like):
    """What one of our samplers makes of x."""
    with torch.inference_mode():
        return sampler(chain, model.denoiser(), x, noise).clone()


def predicting(prediction, variance="fixed_large"):
    """A model of that prediction type whose every weight matters, T = 20."""
    plain = tiny_model()
    config = tiny_config()
    settings = replace(config.diffusion, prediction_type=prediction, variance_type=variance)
    config = replace(config, diffusion=settings)
    network = config.build_network(plain.format.shape)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return Ddpm(config, plain.format, network.requires_grad_(False))


# -- k-diffusion, of which two things are needed and which brings half of PyPI along ---------------


class DiscreteEps(nn.Module):
    """Denoised x by their formulas: x + eps(c_in x, t) c_out, c_out = -sigma, with
    c_in = 1 / sqrt(sigma^2 + 1), and t the index of the nearest sigma, in logarithms."""

    def __init__(self, model, alphas_cumprod, quantize):
        super().__init__()
        assert quantize
        self.model = model
        self.register_buffer("sigmas", ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5)

    def forward(self, x, sigma):
        distances = sigma.log()[:, None] - self.sigmas.log()[None]
        t = distances.abs().argmin(dim=1)
        sigma = sigma.reshape(-1, 1, 1, 1)
        return x - sigma * self.model(x / (sigma**2 + 1).sqrt(), t)


def euler(denoise, x, sigmas):
    """Euler's method for dx/dsigma = (x - denoised) / sigma."""
    for sigma, after in itertools.pairwise(sigmas):
        slope = (x - denoise(x, sigma * x.new_ones(len(x)))) / sigma
        x = x + slope * (after - sigma)
    return x


@pytest.fixture
def k_diffusion(monkeypatch):
    """The two names that the page imports."""
    external, sampling = ModuleType("k_diffusion.external"), ModuleType("k_diffusion.sampling")
    external.DiscreteEpsDDPMDenoiser, sampling.sample_euler = DiscreteEps, euler
    for module in (ModuleType("k_diffusion"), external, sampling):
        monkeypatch.setitem(sys.modules, module.__name__, module)


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["diffusers", "k-diffusion", "azula"])
def test_the_pages_code_draws_what_ddim_draws(library, k_diffusion):
    space = {}
    for code in (*blocks("# Other"), *blocks(library)):
        exec(code, space)
    images, expected = space["images"], space["model"].sample(4, sampler="ddim", plan=space["plan"])
    difference = (images.int() - expected).abs()
    assert images.dtype == torch.uint8
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-3


def test_the_page_and_the_example_show_the_same_classes():
    (classes, _) = blocks("azula")
    code = classes[classes.index("class ChainSchedule") :]
    assert code in (ROOT / "examples" / "other_samplers.py").read_text(encoding="utf-8")


def test_the_example_prints_how_close_they_are(capsys):
    (ddim, _), (solver, mean) = other_samplers.main(steps=20, count=2)
    assert ddim <= 1
    assert 0 < solver < 20
    assert mean < 1
    assert "DDIMSampler and ddim: at most " in capsys.readouterr().out


# -- eps(x, t) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["fixed_large", "learned_range"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "previous_mean"])
def test_the_noise_in_x_whatever_the_network_predicts(prediction, variance):
    model = predicting(prediction, variance)
    chain, x = replace(model.diffusion, clip_sample=False), torch.randn(3, 1, 8, 8)
    t = torch.tensor([0, 7, 19])
    x_start = chain.p_mean_variance(model.denoiser(), x, t).pred_xstart.double()
    abar = torch.tensor(chain.schedule.alphas_cumprod)[t].reshape(-1, 1, 1, 1)
    expected = (x - abar.sqrt() * x_start) / (1 - abar).sqrt()
    found = model.epsilon(x, t)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)
    if prediction == "epsilon":
        assert torch.equal(found, model.denoiser()(x, t)[:, :1])
    found += 1  # no tensor of inference mode, which other libraries could not write to


def test_times_may_be_one_for_all_and_of_any_type():
    model, x = tiny_model(), torch.randn(2, 1, 8, 8)
    expected = model.epsilon(x, torch.tensor([7, 7]))
    for t in (7, torch.tensor(7), torch.tensor(7.0), torch.tensor([7.0, 7.0])):
        assert torch.equal(model.epsilon(x, t), expected)
    assert torch.equal(model.epsilon(x.double(), 7), expected)
    assert expected.dtype == torch.float32


def test_what_has_no_answer_is_refused():
    model, x = tiny_model(), torch.randn(2, 1, 8, 8)
    for t in (-1, 20, 3.5, torch.tensor([3, 20]), torch.tensor(float("nan"))):
        with pytest.raises(DdpmError, match=r"whole times 0\.\.19"):
            model.epsilon(x, t)
    # Half of a gradient would come through: that of the coefficients.
    for ask in (model.epsilon, model.denoiser()):
        with pytest.raises(DdpmError, match=r"no gradient.* model\.network"):
            ask(x.requires_grad_(), torch.tensor([7, 7]))


# -- azula -----------------------------------------------------------------------------------------


def test_azulas_schedule_is_ours_at_every_time(model):
    for chain in (model.diffusion, few(model), model.diffusion.respace([999])):
        schedule, last = ChainSchedule(chain), chain.num_timesteps - 1
        times = torch.arange(last + 1)
        assert torch.equal(schedule.index(times / max(last, 1)), times)
        assert torch.equal(schedule.index(torch.linspace(1, 0, last + 1)), times.flip(0))
        for dtype in (torch.float32, torch.float64):
            alpha, sigma = schedule(times.to(dtype) / max(last, 1))
            ours = chain.schedule
            assert torch.equal(alpha, torch.tensor(ours.sqrt_alphas_cumprod, dtype=dtype))
            assert torch.equal(sigma, torch.tensor(ours.sqrt_one_minus_alphas_cumprod, dtype=dtype))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "previous_mean"])
def test_azulas_posterior_mean_is_our_x_start(prediction):
    model = predicting(prediction)
    chain, x = replace(model.diffusion, clip_sample=False), torch.randn(2, 1, 8, 8)
    theirs = ChainDenoiser(chain, model.denoiser())
    for index in (0, 3, 19):
        t = torch.tensor(index / 19)
        alpha, sigma = theirs.schedule(t)
        mean = theirs(x, t).mean
        ours = chain.p_mean_variance(model.denoiser(), x, torch.tensor([index, index]))
        assert torch.equal(mean, ours.pred_xstart)
        from_noise = (x - sigma * model.epsilon(x, index)) / alpha
        assert torch.allclose(mean, from_noise, rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match="label"):  # a class is given to the model
        theirs(x, t, label=1)


@pytest.mark.parametrize("clip", [True, False])
def test_azulas_first_order_samplers_are_ddim(model, noise, clip):
    chain = few(model, clip)
    theirs = ChainDenoiser(chain, model.denoiser())
    expected = walked(ddpm.Ddim(), chain, model, noise)
    for sampler in (DDIMSampler, EulerSampler):
        for dtype in (None, torch.float64):
            found = draw(sampler(theirs, steps=19, silent=True, dtype=dtype), noise)
            assert found.dtype == torch.float32
            assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)


@pytest.mark.parametrize(
    ("sampler", "options", "ours"),
    [
        (DDPMSampler, {}, ddpm.Ancestral()),
        (DDIMSampler, {"eta": 1.0}, ddpm.Ancestral()),
        (DDIMSampler, {"eta": 0.25}, ddpm.Ddim(0.5)),  # theirs scales the variance
    ],
)
def test_azulas_noisy_samplers_are_ours_with_the_same_noise(model, noise, sampler, options, ours):
    chain = few(model, variance="fixed_small")
    theirs = ChainDenoiser(chain, model.denoiser())
    torch.manual_seed(1)
    found = draw(sampler(theirs, steps=19, silent=True, **options), noise)
    torch.manual_seed(1)
    expected = walked(ours, chain, model, noise, lambda i: torch.randn_like(noise))
    assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)


def test_azulas_second_order_sampler_is_close_to_ours(model, noise):
    chain = few(model, clip=False)
    theirs = ChainDenoiser(chain, model.denoiser())
    found = draw(xEABSampler(theirs, steps=19, silent=True), noise)
    expected = walked(ddpm.DpmSolver(), chain, model, noise)
    difference = float((found - expected).abs().mean())
    first_order = float((walked(ddpm.Ddim(), chain, model, noise) - expected).abs().mean())
    assert FLOAT < difference < first_order / 5


def test_all_timesteps_take_any_number_of_azulas_steps(model, noise):
    asked = []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return model.denoiser()(x, t)

    theirs = ChainDenoiser(model.diffusion, denoiser)
    x = draw(HeunSampler(theirs, steps=7, silent=True), noise)
    assert x.isfinite().all()
    assert sorted(set(asked)) == [0, 143, 285, 428, 571, 714, 856, 999]


def test_azulas_guidance_needs_the_network_itself():
    model, x = tiny_model(), torch.randn(2, 1, 8, 8)
    chain, t = replace(model.diffusion, clip_sample=False), torch.tensor(10 / 19)
    seen = torch.zeros(2, 1, 8, 8)
    theirs, after = ChainDenoiser(chain, model.network), []
    for zeta in (0.0, 1.0):
        torch.manual_seed(0)
        sampler = DPSSampler(theirs, seen, lambda x: x, zeta=zeta)
        after.append(sampler.step(x, t, t - 1 / 19))
    alpha, sigma = theirs.schedule(t)
    leaf = x.clone().requires_grad_()
    x_start = (leaf - sigma * model.network(leaf, torch.tensor([10, 10]))) / alpha
    (gradient,) = torch.autograd.grad(x_start.norm(), leaf)
    assert torch.allclose(after[0] - after[1], gradient, rtol=1e-3, atol=1e-4)
    guided = DPSSampler(ChainDenoiser(chain, model.denoiser()), seen, lambda x: x)
    with pytest.raises(DdpmError, match=r"no gradient.* model\.network"):
        guided.step(x, t, t - 1 / 19)


# -- k-diffusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "previous_mean"])
def test_eulers_method_over_sigma_is_ddim(prediction):
    model, x = predicting(prediction), torch.randn(2, 1, 8, 8)
    wrapped = DiscreteEps(
        model.epsilon, torch.tensor(model.diffusion.schedule.alphas_cumprod), True
    )
    sigmas = torch.cat([wrapped.sigmas.flip(0), torch.zeros(1)])
    start = x * (1 + sigmas[0] ** 2).sqrt()
    for clip, denoise in ((False, wrapped), (True, lambda x, s: wrapped(x, s).clamp(-1, 1))):
        chain = replace(model.diffusion, clip_sample=clip)
        expected = walked(ddpm.Ddim(), chain, model, x)
        found = euler(denoise, start, sigmas).float()
        assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)


# -- diffusers -------------------------------------------------------------------------------------


def scheduled(kind, model, x, steps, step=None, **settings):
    """A loop over one of diffusers' schedulers with our betas; `step` are options of its steps."""
    betas = model.diffusion.schedule.betas
    scheduler = kind(num_train_timesteps=len(betas), trained_betas=betas.tolist(), **settings)
    return looped(scheduler, model, x, steps, step)


def looped(scheduler, model, x, steps, step=None):
    """The loop alone."""
    scheduler.set_timesteps(steps)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = model.epsilon(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **(step or {})).prev_sample
    return x


@pytest.mark.parametrize("clip", [True, False])
def test_diffusers_ddim_is_ours(model, noise, clip):
    noise = 2 * noise  # so that there is something to clip
    expected = walked(ddpm.Ddim(), few(model, clip), model, noise)
    settings = {"clip_sample": clip, "timestep_spacing": "trailing"}
    step = {"use_clipped_model_output": True}
    found = scheduled(DDIMScheduler, model, noise, 20, step, **settings)
    assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)
    other = scheduled(DDIMScheduler, model, noise, 20, **settings)
    assert torch.allclose(other, expected, atol=1e-3) != clip


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "previous_mean"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_diffusers_ddpm_is_algorithm_2_with_the_same_noise(prediction, variance):
    model, x = predicting(prediction, variance), torch.randn(2, 1, 8, 8)
    theirs, ours = (torch.Generator().manual_seed(1) for _ in range(2))
    # Over all T our Algorithm 2 takes a predicted mean as it is.
    settings = {"variance_type": variance, "clip_sample": prediction != "previous_mean"}
    found = scheduled(DDPMScheduler, model, x, 20, {"generator": theirs}, **settings)
    expected = walked(
        ddpm.Ancestral(),
        model.diffusion,
        model,
        x,
        lambda i: torch.randn(x.shape, generator=ours),
    )
    # A predicted x_0 is turned into noise and back, which costs a digit where there is little.
    assert torch.allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_diffusers_dpm_solver_is_ours_without_clipping(model, noise):
    settings = {"final_sigmas_type": "zero", "timestep_spacing": "trailing"}
    found = scheduled(DPMSolverMultistepScheduler, model, noise, 20, **settings)
    expected = walked(ddpm.DpmSolver(), few(model, clip=False), model, noise)
    assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_diffusers_euler_begins_a_little_smaller_and_is_close(model, noise):
    found = scheduled(EulerDiscreteScheduler, model, noise, 20, timestep_spacing="trailing")
    expected = walked(ddpm.Ddim(), few(model, clip=False), model, noise)
    assert float((found - expected).abs().mean()) < 2e-3
    assert not torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)


def test_a_scheduler_of_a_pipelines_folder_takes_another_spacing_and_prediction(
    model, noise, tmp_path
):
    betas = model.diffusion.schedule.betas.tolist()
    stored = DDPMScheduler(trained_betas=betas, prediction_type="v_prediction")
    stored.save_pretrained(tmp_path / "scheduler")
    changed = {"timestep_spacing": "trailing", "prediction_type": "epsilon"}
    scheduler = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler", **changed)
    kept = {key: scheduler.config[key] for key in ("trained_betas", "clip_sample")}
    assert kept == {"trained_betas": betas, "clip_sample": True}
    found = looped(scheduler, model, noise, 20, {"use_clipped_model_output": True})
    expected = walked(ddpm.Ddim(), few(model), model, noise)
    assert torch.allclose(found, expected, rtol=FLOAT, atol=FLOAT)
