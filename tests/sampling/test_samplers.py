"""Samplers on data whose optimal denoiser is known, and against diffusers."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.trajectory import even_timesteps, quadratic_timesteps
from ddpm.sampling import Ancestral, Ddim, DpmSolver, Langevin, Sampler, get_sampler

MEAN = torch.tensor([0.5, -0.3, 0.1, 0.0], dtype=torch.float64)
ROOT = torch.tensor(
    [[0.6, 0, 0, 0], [0.3, 0.4, 0, 0], [-0.2, 0.1, 0.5, 0], [0.1, 0, 0.2, 0.3]],
    dtype=torch.float64,
)
COVARIANCE = ROOT @ ROOT.T


def gaussian_denoiser(diffusion, prediction):
    """What the optimal network of this prediction type says for data from N(MEAN, COVARIANCE)."""
    whole = GaussianDiffusion(make_schedule(), prediction, clip_sample=False)

    def denoise(x, timesteps):
        a = float(whole.schedule.alphas_cumprod[int(timesteps[0])])
        marginal = a * COVARIANCE + (1 - a) * torch.eye(4, dtype=torch.float64)
        gain = math.sqrt(a) * COVARIANCE @ torch.linalg.inv(marginal)
        centred = x.double().flatten(1) - math.sqrt(a) * MEAN
        x_start = (MEAN + centred @ gain.T).reshape(x.shape).to(x.dtype)
        if prediction == "previous_mean":  # a mean belongs to the chain that is being run
            t = torch.searchsorted(torch.from_numpy(diffusion.schedule.timesteps.copy()), timesteps)
            return diffusion.from_xstart(x_start, x, t)
        return whole.from_xstart(x_start, x, timesteps)

    return denoise


def moments_agree(x, n, mean=MEAN, covariance=COVARIANCE, slack=0.0):
    x = x.double().flatten(1)
    error = 5 / math.sqrt(n)
    assert torch.allclose(x.mean(0), mean, atol=error + slack)
    assert torch.allclose(torch.cov(x.T), covariance, atol=error + slack)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "previous_mean", "v_prediction"])
@pytest.mark.parametrize("steps", [1000, 200])
def test_ancestral_sampling_reproduces_gaussian_data(prediction, steps):
    n = 8000
    diffusion = GaussianDiffusion(make_schedule(), prediction, "fixed_small", False)
    diffusion = diffusion.respace(even_timesteps(1000, steps))
    denoiser = gaussian_denoiser(diffusion, prediction)
    x = Ancestral()(diffusion, denoiser, torch.randn(n, 1, 2, 2), lambda i: torch.randn(n, 1, 2, 2))
    moments_agree(x, n, slack=0.0 if steps == 1000 else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "steps", "slack"),
    [(Ddim(), 1000, 0.0), (DpmSolver(), 25, 0.02), (Langevin(corrections=10), 300, 0.03)],
)
def test_the_other_samplers_do_too(sampler, steps, slack):
    n = 8000
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)
    diffusion = diffusion.respace(quadratic_timesteps(1000, steps))
    denoiser = gaussian_denoiser(diffusion, "epsilon")
    start = torch.randn(n, 1, 2, 2)
    x = sampler(diffusion, denoiser, start, lambda i: torch.randn(n, 1, 2, 2))
    moments_agree(x, n, slack=slack)


def double(scheduler):
    """The peers' schedules are float32; give them ours."""
    scheduler.alphas_cumprod = torch.from_numpy(make_schedule().alphas_cumprod.copy())
    return scheduler


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_ddim_step_equals_diffusers(eta):
    theirs = double(DDIMScheduler(clip_sample=True, set_alpha_to_one=True))
    theirs.set_timesteps(10)  # 900, 800, ..., 0
    diffusion = GaussianDiffusion(make_schedule()).respace(list(range(0, 1000, 100)))
    x, output, noise = (torch.randn(2, 1, 4, 4) for _ in range(3))
    for index in (0, 1, 5):
        taken = []
        after = Ddim(eta)(
            diffusion, lambda x, t: output, x, lambda i: noise, start=index, callback=taken.append
        )
        if index > 0:
            after = taken[1].x_t
        kwargs = {"variance_noise": noise if index > 0 else torch.zeros_like(noise)}
        expected = theirs.step(
            output, 100 * index, x, eta=eta, use_clipped_model_output=True, **kwargs
        )
        assert torch.allclose(after, expected.prev_sample.float(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_dpm_solver_equals_diffusers():
    theirs = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", thresholding=False
    )
    theirs.set_timesteps(8)
    steps = sorted(theirs.timesteps.tolist())
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False).respace(steps)
    start = torch.randn(3, 1, 2, 2)

    def denoiser(x, t):  # any smooth function of x and t
        return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1) / 1000)

    expected = start
    for t in theirs.timesteps:
        output = denoiser(expected, t.expand(3))
        expected = theirs.step(output, t, expected).prev_sample
    found = DpmSolver()(diffusion, denoiser, start, lambda i: torch.empty(0))
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_the_last_step_adds_no_noise_and_the_result_is_not_clipped():
    diffusion = GaussianDiffusion(make_schedule(timesteps=5), "previous_mean")
    asked = []

    def noise(i):
        asked.append(i)
        return torch.zeros(1, 1, 2, 2)

    x = Ancestral()(diffusion, lambda x, t: x * 0 + 7.0, torch.zeros(1, 1, 2, 2), noise)
    assert asked == [4, 3, 2, 1]
    assert x.unique().tolist() == [7.0]


@pytest.mark.parametrize("sampler", [Ancestral(), Ddim(), DpmSolver(), Langevin(corrections=3)])
def test_the_step_at_start_is_taken_too_and_the_callback_sees_every_step(sampler):
    diffusion = GaussianDiffusion(make_schedule()).respace([10, 300, 600, 999])
    seen, asked = [], []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return torch.zeros_like(x)

    x = torch.randn(1, 1, 2, 2)
    sampler(
        diffusion, denoiser, x, lambda i: torch.zeros(1, 1, 2, 2), start=2, callback=seen.append
    )
    assert [state.timestep for state in seen] == [600, 300, 10]
    assert [state.index for state in seen] == [2, 1, 0]
    calls = getattr(sampler, "calls_per_step", 1)
    assert asked == [t for t in (600, 300, 10) for _ in range(calls)]
    assert torch.equal(seen[0].x_t, x)


def test_a_sampler_is_found_by_its_name_or_is_one():
    assert get_sampler("ddim") == Ddim(eta=0.0)
    own = Langevin(step_size=0.1)
    assert get_sampler(own) is own
    for name in ("ancestral", "ddim", "dpm-solver", "langevin"):
        assert isinstance(get_sampler(name), Sampler)


def test_wrong_use_gives_a_sentence():
    diffusion = GaussianDiffusion(make_schedule(timesteps=5))
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(DdpmError, match="unknown sampler 'euler'; choose from ancestral, ddim"):
        get_sampler("euler")
    with pytest.raises(DdpmError, match="start"):
        Ancestral()(diffusion, lambda x, t: x, x, lambda i: x, start=5)
    with pytest.raises(DdpmError, match="eta"):
        Ddim(eta=1.5)
    with pytest.raises(DdpmError, match="step_size"):
        Langevin(step_size=0.0)
    with pytest.raises(DdpmError, match="corrections"):
        Langevin(corrections=0)


def test_a_chain_that_ends_in_pure_noise_is_refused_where_it_has_no_meaning():
    diffusion = GaussianDiffusion(make_schedule("jsd", 10), "sample")
    x = torch.randn(1, 1, 2, 2)
    with pytest.raises(DdpmError, match="ends in pure noise"):
        Langevin()(diffusion, lambda x, t: x, x, lambda i: x)
    for other in (Ancestral(), Ddim(), DpmSolver()):
        assert other(diffusion, lambda x, t: x.clamp(-1, 1), x, lambda i: x).isfinite().all()
