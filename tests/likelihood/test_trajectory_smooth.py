"""The trajectory of least error of the ODE: its prices by hand, and what it does to a picture."""

import itertools

import numpy as np
import pytest
import torch

from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood import ode_error
from ddpm.likelihood.denoising_error import DenoisingError, measure_denoising_error
from ddpm.likelihood.ode_error import POWER, VARIANCES, ode_costs, spectrum
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.trajectory import (
    cheapest,
    cheapest_of_each,
    even_timesteps,
    optimal_timesteps,
    quadratic_timesteps,
    smooth_timesteps,
)
from ddpm.sampling import Ddim, UniPc
from likelihood.test_bound import gaussian_denoiser, gaussian_images

NATURAL = torch.tensor([8.0, 0.6, 0.05, 0.004]).double().reshape(1, 1, 2, 2)  # as of a photograph


def best_error(schedule, variances):
    """The denoising error of the best network, for data from N(0, variances)."""
    abar = schedule.alphas_cumprod.reshape(-1, 1, 1, 1)
    c = variances.numpy()
    mse = c * (1 - abar) / (abar * c + 1 - abar)
    return DenoisingError(np.arange(len(abar)), mse, np.linspace(0.1, 5, len(abar)), 100)


def image_error(sampler, timesteps, variances=NATURAL):
    """How far each mode of the image is from where the ODE leads, in its standard deviations."""
    whole = GaussianDiffusion(make_schedule(), "sample", clip_sample=False)
    abar = torch.from_numpy(whole.schedule.alphas_cumprod.copy())

    def denoiser(x, t):
        a = abar[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * variances / (a * variances + 1 - a) * x

    start = (abar[-1] * variances + 1 - abar[-1]).sqrt()
    found = sampler(whole.respace(timesteps), denoiser, start, lambda i: torch.empty(0))
    return ((found / variances.sqrt() - 1) ** 2 * variances**POWER).mean().sqrt().item()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_spectrum_explains_the_error_and_holds_the_variance(name):
    schedule = make_schedule(name)
    error = best_error(schedule, NATURAL)
    shares = spectrum(schedule, error)
    abar = schedule.alphas_cumprod[:, None]
    explained = (VARIANCES * (1 - abar) / (abar * VARIANCES + 1 - abar)) @ shares
    assert explained == pytest.approx(error.xstart_mse.mean(axis=(1, 2, 3)), rel=0.03)
    assert shares @ VARIANCES == pytest.approx(NATURAL.mean().item(), rel=0.03)
    assert (shares > 0).all()


@pytest.mark.parametrize(("t", "s"), [(999, 700), (700, 300), (300, 20), (300, None), (20, None)])
def test_a_price_is_what_a_step_of_ddim_is_off(t, s, monkeypatch):
    """The step alone, from where the ODE is at t to where it is at s, of one mode."""
    schedule = make_schedule()
    variance = torch.full((1, 1, 1, 1), VARIANCES[15]).double()
    monkeypatch.setattr(ode_error, "spectrum", lambda *_: (np.arange(31) == 15).astype(float))
    steps, last = ode_costs(schedule, best_error(schedule, variance))
    chain = GaussianDiffusion(schedule, "sample", clip_sample=False)
    chain = chain.respace([t] if s is None else [s, t])
    abar = torch.from_numpy(schedule.alphas_cumprod.copy())

    def denoiser(x, at):
        a = abar[at].reshape(-1, 1, 1, 1)
        return a.sqrt() * variance / (a * variance + 1 - a) * x

    def spread(at):
        return (abar[at] * variance + 1 - abar[at]).sqrt()

    seen = []
    noise = torch.zeros(1, 1, 1, 1).double()
    image = Ddim()(chain, denoiser, spread(t), lambda i: noise, callback=seen.append)
    q = image / variance.sqrt() if s is None else seen[-1].x_t / spread(s)
    expected = (q - 1).abs().item() * variance.item() ** (POWER / 2)
    assert (last[t] if s is None else steps[t, s]) == pytest.approx(expected, rel=1e-6)


def test_the_path_equals_brute_force():
    schedule = make_schedule(timesteps=9, beta_end=0.3)
    costs, ends = ode_costs(schedule, best_error(schedule, NATURAL))

    def price(steps):
        return ends[steps[0]] + sum(costs[t, s] for s, t in itertools.pairwise(steps))

    for k in range(1, 10):
        candidates = [[*middle, 8] for middle in itertools.combinations(range(8), k - 1)]
        found = cheapest(costs, ends, k).tolist()
        assert len(found) == k
        assert price(found) == pytest.approx(min(map(price, candidates)))
    for k, path in enumerate(cheapest_of_each(costs, ends, 9), 1):
        assert path.tolist() == cheapest(costs, ends, k).tolist()


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("sampler", [Ddim(), UniPc()])
def test_a_picture_is_off_less_than_along_the_other_trajectories(steps, sampler):
    schedule = make_schedule()
    error = best_error(schedule, NATURAL)
    found = image_error(sampler, smooth_timesteps(schedule, error, steps))
    others = [even_timesteps(1000, steps), optimal_timesteps(schedule, error, steps)]
    if sampler == Ddim():
        others.append(quadratic_timesteps(1000, steps))
    assert found < min(image_error(sampler, other) for other in others)


@pytest.mark.parametrize("name", ["jsd", "cosine", "linear"])
@pytest.mark.parametrize("total", [1, 2, 40])
def test_any_chain_has_one_of_any_length(name, total):
    schedule = make_schedule(name, total)
    error = best_error(schedule, NATURAL)
    for k in {1, 2, total // 2, total} & set(range(1, total + 1)):
        found = smooth_timesteps(schedule, error, k)
        assert len(set(found.tolist())) == k
        assert found[-1] == total - 1
        assert (np.diff(found) > 0).all()
    with pytest.raises(DdpmError, match=rf"1\.\.{total}"):
        smooth_timesteps(schedule, error, total + 1)


def test_an_error_measured_at_a_few_timesteps_is_enough():
    schedule = make_schedule()
    whole = best_error(schedule, NATURAL)
    few = np.unique(np.linspace(0, 999, 60).astype(int))
    part = DenoisingError(few, whole.xstart_mse[few], whole.decoder_bpd[few], 100)
    found, expected = (smooth_timesteps(schedule, error, 10) for error in (part, whole))
    assert found == pytest.approx(expected, abs=15)


def test_of_a_calibrated_model_the_error_of_the_calibrated_image_decides():
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)

    def poor(x, t):  # its x_0 is as good as noise early on
        return gaussian_denoiser(diffusion)(x, t) * (1 + 0.3 * (t > 600).reshape(-1, 1, 1, 1))

    error = measure_denoising_error(
        diffusion, poor, gaussian_images(60, 8), ImageFormat(1, 8, 8), timesteps=30
    )
    found = smooth_timesteps(diffusion.schedule, error, 5)
    calibrated = smooth_timesteps(diffusion.schedule, error.calibrated, 5)
    assert found.tolist() == calibrated.tolist()


def test_a_plan_takes_it_by_name_and_says_what_is_missing():
    diffusion = GaussianDiffusion(make_schedule())
    error = best_error(diffusion.schedule, NATURAL)
    expected = smooth_timesteps(diffusion.schedule, error, 7).tolist()
    assert Plan(7, "smooth").chain(diffusion, error).schedule.timesteps.tolist() == expected
    with pytest.raises(DdpmError, match="has not been measured"):
        Plan(7, "smooth").chain(diffusion, None)
