"""Heun's method: its order, against diffusers, what it costs, and where steps are long."""

import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.likelihood.trajectory import even_timesteps
from ddpm.sampling import Ddim, Heun, get_sampler, network_calls
from sampling.gaussian_ode import errors_of_halved_steps, no_noise


def tanh_denoiser(x, t):
    """Any smooth function of x and t."""
    return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1) / 1000)


def short_steps(steps):
    """Timesteps between which s = sigma / alpha falls by less than a half."""
    levels = -np.log(make_schedule().snr) / 2
    wanted = np.linspace(levels[20], levels[-1], steps)
    assert wanted[1] - wanted[0] < math.log(2)
    return [int(np.abs(levels - value).argmin()) for value in wanted]


def test_half_the_step_gives_a_quarter_of_the_error():
    found = errors_of_halved_steps(Heun())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(found)]
    assert orders[-2:] == pytest.approx([2, 2], abs=0.1)
    assert found[-1] < errors_of_halved_steps(Ddim())[-1] / 20


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_step_equals_diffusers(prediction):
    visited = short_steps(14)
    chain = GaussianDiffusion(make_schedule(), prediction, clip_sample=False).respace(visited)
    theirs = HeunDiscreteScheduler(
        beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type=prediction
    )
    theirs.set_timesteps(timesteps=visited[::-1])
    level = torch.from_numpy(1 / np.sqrt(chain.schedule.snr[::-1].copy()))
    twice = level[1:].repeat_interleave(2)
    theirs.sigmas = torch.cat([level[:1], twice, torch.zeros(1)])  # ours are float64
    start = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, at = start * (level[0] ** 2 + 1).sqrt(), []
    for i, t in enumerate(theirs.timesteps):
        x = theirs.scale_model_input(y, t)
        at.append(x)
        y = theirs.step(tanh_denoiser(x, t.expand(3)), t, y).prev_sample
        assert len(theirs.timesteps) == 2 * len(visited) - 1 > i
    seen = []
    found = Heun()(chain, tanh_denoiser, start, no_noise, callback=seen.append)
    for x, state in zip(at[::2], seen, strict=True):
        assert torch.allclose(x, state.x_t, rtol=1e-9, atol=1e-9)
    assert torch.allclose(found, y, rtol=1e-9, atol=1e-9)


def test_k_steps_cost_two_k_minus_one_calls_and_the_callback_sees_k():
    asked, seen = [], []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return 0.1 * x

    chain = GaussianDiffusion(make_schedule()).respace([10, 300, 600, 999])
    x = torch.randn(2, 1, 2, 2)
    Heun()(chain, denoiser, x, no_noise, start=2, callback=seen.append)
    assert asked == [600, 300, 300, 10, 10]
    assert [state.timestep for state in seen] == [600, 300, 10]
    assert torch.equal(seen[0].x_t, x)
    assert network_calls(Heun(), 3) == 5
    assert network_calls(Heun(), 1) == 1
    assert network_calls(Ddim(), 3) == 3
    assert network_calls(get_sampler("langevin"), 3) == 15


def test_one_step_is_ddims():
    chain = GaussianDiffusion(make_schedule()).respace([999])
    x = torch.randn(2, 1, 2, 2)
    assert torch.equal(
        Heun()(chain, tanh_denoiser, x, no_noise), Ddim()(chain, tanh_denoiser, x, no_noise)
    )


@pytest.mark.parametrize("name", ["jsd", "cosine", "linear", "const"])
@pytest.mark.parametrize("steps", [2, 3, 5, 10])
def test_long_steps_stay_within_the_images(name, steps):
    """The data is one of two constant images, so D lies between them and so should x_0."""
    whole = GaussianDiffusion(make_schedule(name, 1000), "sample")
    chain = whole.respace(even_timesteps(1000, steps))
    alpha = torch.from_numpy(chain.schedule.sqrt_alphas_cumprod.copy())
    sigma = torch.from_numpy(chain.schedule.sqrt_one_minus_alphas_cumprod.copy())

    def denoiser(x, t):
        return torch.tanh(x.mean((1, 2, 3), keepdim=True).expand_as(x))

    seen = []
    start = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    found = Heun()(chain, denoiser, start, no_noise, callback=seen.append)
    assert found.abs().max() <= 1
    for state in seen:
        bound = alpha[state.index] + sigma[state.index] * (start.abs().max() + 1e-9)
        assert state.x_t.abs().max() <= bound


def test_its_name():
    assert get_sampler("heun") == Heun()
