"""The training losses, each against its definition."""

import math

import pytest
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses import training_loss
from ddpm.diffusion.schedule import make_schedule


def batch():
    x_start = torch.rand(4, 1, 4, 4) * 2 - 1
    return x_start, torch.tensor([1, 5, 50, 99]), torch.randn_like(x_start)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "previous_mean", "v_prediction"])
def test_l_simple_is_the_mean_squared_error_on_what_is_predicted(prediction):
    diffusion = GaussianDiffusion(make_schedule(timesteps=100), prediction)
    x_start, t, noise = batch()
    x_t = diffusion.q_sample(x_start, t, noise)
    a = torch.from_numpy(diffusion.schedule.alphas_cumprod.copy())[t].reshape(-1, 1, 1, 1)
    target = {
        "epsilon": noise,
        "sample": x_start,
        "previous_mean": diffusion.q_posterior_mean_variance(x_start, x_t, t)[0],
        "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * x_start,
    }[prediction]
    zero = training_loss(diffusion, lambda x, t: torch.zeros_like(x), x_start, t, noise)
    expected = (target**2).sum(dim=(1, 2, 3)) / 16
    assert zero.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    perfect = training_loss(diffusion, lambda x, t: target.float(), x_start, t, noise)
    assert float(perfect.max()) < 1e-9


def test_the_bound_is_one_term_in_bits_per_dim_without_clipping():
    diffusion = GaussianDiffusion(make_schedule(timesteps=100), "sample", "fixed_large", True)
    x_start, t, noise = batch()
    guess = torch.full_like(x_start, 3.0)  # far outside [-1, 1]: clipping would show
    loss = training_loss(diffusion, lambda x, t: guess, x_start, t, noise, "vlb")
    x_t = diffusion.q_sample(x_start, t, noise)
    q_mean, q_variance, _ = diffusion.q_posterior_mean_variance(x_start, x_t, t)
    p_mean, _, _ = diffusion.q_posterior_mean_variance(guess, x_t, t)
    beta = torch.from_numpy(diffusion.schedule.betas.copy()).float()[t].reshape(-1, 1, 1, 1)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(q_mean, q_variance.sqrt()),
        torch.distributions.Normal(p_mean, beta.sqrt()),
    )
    expected = kl.mean(dim=(1, 2, 3)) / math.log(2)
    assert loss.tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_the_hybrid_trains_the_mean_by_l_simple_alone():
    diffusion = GaussianDiffusion(make_schedule(timesteps=100), "epsilon", "learned_range")
    x_start, t, noise = batch()
    gradients = {}
    outputs = torch.randn(4, 2, 4, 4)
    for loss_type in ("simple", "hybrid", "vlb"):
        output = outputs.clone().requires_grad_()
        training_loss(
            diffusion, lambda x, t, o=output: o, x_start, t, noise, loss_type
        ).sum().backward()
        gradients[loss_type] = output.grad
    mean, variance = slice(0, 1), slice(1, 2)
    assert torch.allclose(gradients["hybrid"][:, mean], gradients["simple"][:, mean])
    assert float(gradients["simple"][:, variance].abs().max()) == 0
    # lambda = 0.001, and the sum over t is T times one term: 0.1 here.
    assert torch.allclose(gradients["hybrid"][:, variance], 0.1 * gradients["vlb"][:, variance])
    assert float(gradients["vlb"][:, variance].abs().max()) > 0


def test_training_on_the_bound_at_t_0_has_finite_gradients():
    diffusion = GaussianDiffusion(make_schedule(), "epsilon", "learned")
    x_start = torch.tensor([-1.0, -0.5, 0.5, 1.0]).reshape(1, 1, 2, 2)
    output = torch.randn(1, 2, 2, 2).requires_grad_()
    loss = training_loss(
        diffusion, lambda x, t: output, x_start, torch.tensor([0]), torch.randn(1, 1, 2, 2), "vlb"
    )
    loss.sum().backward()
    assert bool(torch.isfinite(output.grad).all())


def test_the_weights_of_the_bound_turn_l_simple_into_its_terms():
    diffusion = GaussianDiffusion(make_schedule(timesteps=100), "epsilon", "fixed_small")
    x_start = torch.rand(4, 1, 4, 4).double() * 2 - 1
    t, noise, guess = torch.tensor([1, 5, 50, 99]), *torch.randn(2, 4, 1, 4, 4).double()
    arguments = diffusion, lambda x, t: guess, x_start, t, noise
    weights = torch.from_numpy(diffusion.schedule.bound_weights)
    weighted = weights[t] * training_loss(*arguments) / math.log(2)
    assert weighted.tolist() == pytest.approx(training_loss(*arguments, "vlb").tolist(), rel=1e-6)
    # At t = 0 the bins of many grey levels are so narrow that the masses are densities.
    first = torch.zeros_like(t)
    levels = 100_001
    on_grid = torch.round((x_start + 1) / 2 * (levels - 1)) * 2 / (levels - 1) - 1
    perfect = training_loss(
        diffusion, lambda x, t: noise, on_grid, first, noise, "vlb", grey_levels=levels
    )
    off = training_loss(
        diffusion, lambda x, t: guess, on_grid, first, noise, "vlb", grey_levels=levels
    )
    simple = training_loss(diffusion, lambda x, t: guess, on_grid, first, noise)
    expected = weights[0] * simple / math.log(2)
    assert (off - perfect).tolist() == pytest.approx(expected.tolist(), rel=1e-3)
