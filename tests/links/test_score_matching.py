"""Training is denoising score matching, sampling is Langevin dynamics, the bound is a bound."""

import math
import sys
from pathlib import Path

import pytest
import torch

import ddpm

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from points import Mixture, Mlp, bound, chain_between, gap, reverse_chain, ring, score, spread

from typecheck import unchecked

STEPS, BATCHES, BATCH, GROUP = 20, 256, 256, 16


@pytest.fixture
def data():
    """Three Gaussians without any symmetry, in float64."""
    return Mixture(torch.tensor([[0.9, 0.2], [-0.4, 0.8], [-0.3, -0.7]]).double(), 0.3)


@pytest.fixture
def network():
    """A network that has learned nothing, small enough for 512 gradients, in float64."""
    return Mlp(width=8, depth=1).double()


def chain(variance="fixed_large"):
    """Twenty steps to noise, without clipping."""
    schedule = ddpm.make_schedule(timesteps=STEPS, beta_start=0.02, beta_end=0.5)
    return ddpm.GaussianDiffusion(schedule, variance_type=variance, clip_sample=False)


def weights(diffusion, kind):
    """What multiplies |eps - eps_theta|^2 / d at each t, and what is added to it, both [T].

    L_simple is that square itself (Eq. 14). The bound weighs it as Eq. 12 does, in bits, and a
    variance other than beta~ costs the KL of two Gaussians of equal mean.
    """
    s = diffusion.schedule
    if kind == "simple":
        return torch.ones(STEPS).double(), torch.zeros(STEPS).double()
    sigma2 = s.betas if diffusion.variance_type == "fixed_large" else s.posterior_variance
    beta, tilde, alpha, abar = (
        torch.tensor(values[1:])
        for values in (s.betas, s.posterior_variance, s.alphas, s.alphas_cumprod)
    )
    sigma2 = torch.tensor(sigma2[1:])
    weight = beta**2 / (2 * sigma2 * alpha * (1 - abar))  # Eq. 12
    extra = 0.5 * ((sigma2 / tilde).log() + tilde / sigma2 - 1)
    none = torch.zeros(1).double()
    return torch.cat([none, weight]) / math.log(2), torch.cat([none, extra]) / math.log(2)


def flat_gradient(loss, network):
    """All of a loss's gradient as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def both(data, diffusion, network, kind):
    """Of BATCHES batches the gradients and values of our loss and of explicit score matching:
    E w (1 - abar) |s_theta - s|^2 / d, at the same x_t.
    """
    abar = torch.tensor(diffusion.schedule.alphas_cumprod)
    weight, _ = weights(diffusion, kind)
    gradients, values = [], []
    for _ in range(BATCHES):
        x_start, noise = data.sample(BATCH), torch.randn(BATCH, 2).double()
        t = torch.randint(1, STEPS, (BATCH,))  # t > 1 in the paper, which counts from 1
        name = "simple" if kind == "simple" else "vlb"
        ours = ddpm.training_loss(diffusion, network, x_start, t, noise, name).mean()
        x_t, level = diffusion.q_sample(x_start, t, noise), 1 - abar[t]
        model_score = -network(x_t, t) / level.sqrt()[:, None]
        error = (model_score - data.score(x_t, abar[t])).square().mean(1)
        explicit = (weight[t] * level * error).mean()
        gradients.append(torch.stack([flat_gradient(v, network) for v in (ours, explicit)]))
        values.append(torch.stack([ours, explicit]).detach())
    return torch.stack(gradients), torch.stack(values)


def fisher(data, abar):
    """E|score|^2 of q(x_t) by the rectangle rule on [-6, 6]^2: no sampling."""
    line = torch.linspace(-6, 6, 241).double()
    grid = torch.cartesian_prod(line, line)
    squares = data.score(grid, abar).square().sum(1)
    return float((data.log_prob(grid, abar).exp() * squares).sum()) * 0.05**2


KINDS = [("simple", "fixed_large"), ("bound", "fixed_large"), ("bound", "fixed_small")]


@pytest.mark.parametrize(("kind", "variance"), KINDS)
def test_our_gradient_is_that_of_explicit_score_matching(data, network, kind, variance):
    diffusion = chain(variance)
    gradients, values = both(data, diffusion, network, kind)
    ours, explicit = gradients.mean(0)
    apart = gradients[:, 0] - gradients[:, 1]
    # The mean of B independent differences of mean 0 has 1/B of their variance. In the worst case,
    # all of it in one direction, the quotient is chi-squared with one degree of freedom: < 9
    # is three standard deviations.
    variance_of_one = apart.var(0).sum()
    assert float(apart.mean(0).square().sum() * BATCHES / variance_of_one) < 9
    # ... and that is far less than the gradients themselves.
    assert float((ours - explicit).norm()) < 0.1 * float(explicit.norm())
    # It shrinks with the sample: 16 times the sample, 1/16 of the mean square. From 16 groups that
    # is known to a share of sqrt(2 / 16) in the worst case; a bias would keep the quotient near 1.
    groups = apart.unflatten(0, (-1, GROUP)).mean(1).square().sum(1).mean()
    shrinkage = float(apart.square().sum(1).mean() / groups)
    assert shrinkage > 16 / (1 + 3 * (2 / 16) ** 0.5)
    # The losses themselves differ by what no network can change: E w (1 - (1 - abar) E|s|^2 / d).
    weight, extra = weights(diffusion, kind)
    abar = diffusion.schedule.alphas_cumprod
    unknowable = [1 - (1 - abar[t]) * fisher(data, abar[t]) / 2 for t in range(STEPS)]
    constant = float((weight * torch.tensor(unknowable) + extra)[1:].mean())
    difference = values[:, 0] - values[:, 1]
    error = float(difference.std()) / BATCHES**0.5
    assert abs(float(difference.mean()) - constant) < 4 * error
    assert constant > 30 * error


# -- sampling -----------------------------------------------------------------------------------


def walk(diffusion, denoiser, dtype):
    """All x_t of Algorithm 2, from x_T down to x_0, and the noise of each step."""
    seen, noises = [], {}

    def noise(index):
        noises[index] = torch.randn(64, 2, dtype=dtype)
        return noises[index]

    x = torch.randn(64, 2, dtype=dtype)
    last = ddpm.Ancestral()(
        diffusion, denoiser, x, noise, callback=lambda state: seen.append(state.x_t)
    )
    return [last, *reversed(seen)], noises


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_of_algorithm_2_is_a_step_along_the_score(network, variance, dtype):
    diffusion, network = chain(variance), network.to(dtype)
    s = diffusion.schedule
    with torch.no_grad():
        states, noises = walk(diffusion, network, dtype)
        for t in range(STEPS):
            x, beta, alpha = states[t + 1], float(s.betas[t]), float(s.alphas[t])
            slope = score(diffusion, network, t)(x)
            expected = (x + beta * slope) / alpha**0.5
            if t > 0:
                tilde = beta * float((1 - s.alphas_cumprod[t - 1]) / (1 - s.alphas_cumprod[t]))
                expected += (beta if variance == "fixed_large" else tilde) ** 0.5 * noises[t]
            # The way by x^_0 takes a dozen roundings, of numbers up to x_t / sqrt(abar_t).
            largest = float(x.abs().max()) / float(s.sqrt_alphas_cumprod[t])
            limit = 12 * torch.finfo(dtype).eps * max(1.0, largest)
            assert float((states[t] - expected).abs().max()) < limit


def test_a_langevin_step_with_the_same_drift_adds_twice_the_variance(data):
    """The package's Langevin step, made so small that its drift is beta_t score."""
    diffusion = ddpm.GaussianDiffusion(ddpm.make_schedule(), clip_sample=False)
    denoiser, t = data.denoiser(diffusion), 300
    s = diffusion.schedule
    beta, abar = float(s.betas[t]), float(s.alphas_cumprod[t])
    seen, z = [], torch.randn(64, 2).double()
    sampler = ddpm.Langevin(step_size=2 * beta / (1 - abar), corrections=1)
    x = torch.randn(64, 2).double()
    sampler(
        diffusion, denoiser, x, lambda i: z, start=t, callback=lambda state: seen.append(state.x_t)
    )
    scale = float(s.alphas_cumprod[t - 1] / abar) ** 0.5
    langevin = x + beta * score(diffusion, denoiser, t)(x) + (2 * beta) ** 0.5 * z
    assert torch.allclose(seen[1] / scale, langevin, atol=1e-10)
    # Algorithm 2 at the same x_t and with the same z, less its mean: sqrt(beta) z.
    seen = []
    ddpm.Ancestral()(
        diffusion, denoiser, x, lambda i: z, start=t, callback=lambda state: seen.append(state.x_t)
    )
    p = diffusion.p_mean_variance(denoiser, x, torch.full((64,), t))
    assert torch.allclose((seen[1] - p.mean).square(), beta * z.square(), atol=1e-10)
    # beta~ is about beta: within 1 % here, as beta_t / (1 - abar_t) is small.
    assert 0.99 < float(s.posterior_variance[t]) / beta < 1


def test_with_twice_the_noise_the_chain_is_too_wide_and_with_its_own_it_is_right():
    """Where x_t is all but noise V becomes (1 - beta) V and what is added, which ends at 1 or 2."""
    data, n = ring(), 500
    diffusion = ddpm.GaussianDiffusion(ddpm.make_schedule(), clip_sample=False)
    denoiser = data.denoiser(diffusion)
    abar = diffusion.schedule.alphas_cumprod
    true = abar * (0.5 + data.std**2) + 1 - abar
    with unchecked():  # which is most of the time of so many small steps
        once, twice = (spread(diffusion, denoiser, noise, n) for noise in (1.0, 2.0))
    # The mean square of 2 n numbers, at most as spread as Gaussian ones: sqrt(2 / 2 n).
    deviation = (1 / n) ** 0.5
    times = [900, 700, 500, 300, 150, 50]
    assert all(abs(once[t] / true[t] - 1) < 4 * deviation for t in times)
    assert abs(twice[500] / 2 - 1) < 0.1 + 4 * deviation
    assert twice[300] > 1.5 * true[300]
    # Its end is further out than data, too: the mean of -log q, which data has at 0.33.
    ends = [-data.log_prob(reverse_chain(diffusion, denoiser, n, noise)) for noise in (1.0, 2.0)]
    assert abs(float(ends[0].mean()) - 0.33) < 0.05 + 4 / n**0.5
    assert float(ends[1].mean()) > 0.7


# -- the bound ----------------------------------------------------------------------------------


def test_with_the_exact_denoiser_the_bound_comes_down_to_the_likelihood():
    data, gaps = ring(), {}
    for steps in (4, 16, 64, 256):
        diffusion = chain_between(steps)
        gaps[steps] = gap(data, diffusion, data.denoiser(diffusion), n=1000)
    for (mean, error), (after, later) in zip(
        list(gaps.values())[:-1], list(gaps.values())[1:], strict=True
    ):
        assert mean > -4 * error
        assert mean - after > 4 * (error**2 + later**2) ** 0.5
    # In the limit each of T terms is of order 1 / T^2, so four times the steps are a quarter.
    quotient = gaps[64][0] / gaps[256][0]
    spread_of_it = quotient * sum((e / m) ** 2 for m, e in (gaps[64], gaps[256])) ** 0.5
    assert 2 < quotient < 4 + 4 * spread_of_it
    assert gaps[256][0] < 0.15


@pytest.mark.parametrize("kind", ["fixed_large", "fixed_small"])
def test_no_denoiser_takes_the_mean_of_the_bound_below_the_likelihood(kind):
    data, diffusion = ring(), chain_between(64, variance_type=kind)
    exact = data.denoiser(diffusion)
    found = []
    for denoiser in (
        exact,
        lambda x, t: 0.7 * exact(x, t),
        lambda x, t: 1.3 * exact(x, t),
        lambda x, t: torch.zeros_like(x),
    ):
        mean, error = gap(data, diffusion, denoiser, n=500)
        assert mean > -4 * error
        found.append(mean)
    assert found[0] == min(found)


def test_single_points_may_lie_below():
    """Far from the ring the 16-step model is more generous than the data: its own density there
    is larger, and so is every bound on it."""
    data, diffusion = ring(), chain_between(16)
    x = torch.tensor([[1.6, 0.0]]).expand(500, 2)
    above = bound(diffusion, data.denoiser(diffusion), x) + data.log_prob(x)
    assert float(above.mean()) + 4 * float(above.std()) / 500**0.5 < 0
