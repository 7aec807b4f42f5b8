"""Gaussian KL and the discrete decoder against torch.distributions, scipy and calculus."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr
from scipy.stats import norm

from ddpm.diffusion.bound_terms import (
    discretized_gaussian_log_likelihood,
    normal_kl,
    prior_bpd,
    vb_term,
)
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule


def test_kl_equals_torch_distributions():
    m1, m2, v1, v2 = (torch.randn(50) for _ in range(4))
    p, q = (torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in ((m1, v1), (m2, v2)))
    expected = torch.distributions.kl_divergence(p, q)
    assert torch.allclose(normal_kl(m1, v1, m2, v2), expected, atol=1e-5)


def grid(levels):
    return torch.linspace(-1, 1, levels, dtype=torch.float64)


@settings(max_examples=200, deadline=None)
@given(
    mean=st.floats(-5, 5),
    log_scale=st.floats(math.log(1e-6), math.log(20)),
    levels=st.sampled_from([2, 17, 256]),
)
def test_masses_sum_to_one_for_every_mean_and_scale(mean, log_scale, levels):
    log_mass = discretized_gaussian_log_likelihood(
        grid(levels), torch.tensor(mean), torch.tensor(log_scale), levels
    )
    assert bool((log_mass <= 0).all())
    assert float(log_mass.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.1), (0.31, 0.02), (-1.2, 0.3), (0.9, 2.0)])
def test_masses_are_those_of_the_gaussian(mean, scale):
    x, half = grid(256).numpy(), 1 / 255
    lower = np.where(x < -1 + half, -np.inf, x - half)
    upper = np.where(x > 1 - half, np.inf, x + half)
    expected = norm.cdf(upper, mean, scale) - norm.cdf(lower, mean, scale)
    found = discretized_gaussian_log_likelihood(
        torch.from_numpy(x),
        torch.tensor(mean, dtype=torch.float64),
        torch.tensor(math.log(scale), dtype=torch.float64),
    ).exp()
    assert found.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_tails_are_right_where_the_masses_underflow():
    """At 100 standard deviations log Phi(b) dominates; scipy has it to machine precision."""
    scale, half = 0.01, 1 / 255
    for x, mean in ((0.0, 1.0), (0.0, -1.0), (1.0, -1.0), (-1.0, 1.0)):
        near = 1 - half if x == mean else abs(x - mean) - half
        expected = log_ndtr(-near / scale)
        found = discretized_gaussian_log_likelihood(
            torch.tensor(x).double(), torch.tensor(mean).double(), torch.tensor(math.log(scale))
        )
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_finite_everywhere():
    mean = torch.linspace(-3, 3, 61).double()[:, None].requires_grad_()
    log_scale = torch.linspace(-9, 2, 12).double()[:, None, None].requires_grad_()
    discretized_gaussian_log_likelihood(grid(17), mean, log_scale, 17).sum().backward()
    assert bool(torch.isfinite(mean.grad).all())
    assert bool(torch.isfinite(log_scale.grad).all())


def test_the_term_at_t_0_is_the_decoder_and_elsewhere_the_kl():
    diffusion = GaussianDiffusion(make_schedule(), "sample", "fixed_large", False)
    x_start = torch.tensor([[[[-1.0, 0.0, 0.25, 1.0]]]]).repeat(2, 1, 1, 1)
    guess = x_start + 0.02
    t = torch.tensor([0, 300])
    x_t = diffusion.q_sample(x_start, t, torch.randn_like(x_start))
    terms, _ = vb_term(diffusion, lambda x, t: guess, x_start, x_t, t, 17)
    scale = math.sqrt(diffusion.schedule.posterior_variance[1])
    log_mass = discretized_gaussian_log_likelihood(
        x_start[0].double(),
        guess[0].double(),
        torch.tensor(math.log(scale), dtype=torch.float64),
        17,
    )
    assert terms[0].item() == pytest.approx(-float(log_mass.mean()) / math.log(2), rel=1e-3)
    schedule = diffusion.schedule
    lam, beta = schedule.posterior_variance[300], schedule.betas[300]
    shift = schedule.posterior_mean_coef1[300] * 0.02
    kl = 0.5 * (math.log(beta / lam) + (lam + shift**2) / beta - 1)
    assert terms[1].item() == pytest.approx(kl / math.log(2), rel=2e-2)


def test_the_prior_term_in_closed_form():
    diffusion = GaussianDiffusion(make_schedule(timesteps=100))
    x = torch.full((1, 1, 2, 2), 0.5)
    a = diffusion.schedule.alphas_cumprod[-1]
    expected = 0.5 * (a * 0.25 + (1 - a) - 1 - math.log(1 - a)) / math.log(2)
    assert prior_bpd(diffusion, x).item() == pytest.approx(expected, rel=1e-5)
