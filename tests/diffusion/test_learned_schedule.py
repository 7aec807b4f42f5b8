"""Learned forward variances: constants, gradients, order, and what a schedule can change.

Where the denoiser is exact (x_0 is a mixture of two Gaussians) the bound is a sum of integrals over
x_0 and the noise, which a few hundred nodes give to many digits.
"""

import math

import numpy as np
import pytest
import torch

from ddpm.diffusion.bound_terms import prior_bpd, vb_term
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.importance import BoundTimes
from ddpm.diffusion.learned import (
    LearnedLogSnr,
    learned_diffusion,
    log_snr,
    schedule_from_log_snr,
    tables,
    without_schedule,
)
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.training.learned_schedule import bound_loss

MEANS, WIDTH = (-0.5, 0.6), 0.1  # of the mixture


# -- what the parameters stand for ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "learned"])
@pytest.mark.parametrize("total", [2, 20, 1000])
def test_the_constants_are_those_of_the_schedule(name, total):
    schedule = make_schedule(name, total)
    found = tables(torch.tensor(log_snr(schedule)))
    again = schedule_from_log_snr(log_snr(schedule))
    for key, values in found.items():
        expected = getattr(schedule, key)
        # log SNR near 10 keeps twelve digits of 1 - abar.
        assert np.allclose(values.numpy(), expected, rtol=1e-9, atol=1e-15), key
        assert np.allclose(getattr(again, key), expected, rtol=1e-9, atol=1e-15), key
    every = {key for key, value in vars(schedule).items() if isinstance(value, np.ndarray)}
    assert found.keys() == every - {"timesteps"}


def test_the_gradients_of_all_constants_are_right():
    values = torch.linspace(4, -5, 6, dtype=torch.float64, requires_grad=True)

    def constants(x):
        return torch.stack(list(tables(x).values()))

    assert torch.autograd.gradcheck(constants, (values,))


def test_a_learned_schedule_begins_where_it_should():
    start = make_schedule("cosine", 50)
    found = LearnedLogSnr(start)().detach().numpy()
    assert np.allclose(found, log_snr(start), atol=1e-4)  # parameters are float32
    even = log_snr(make_schedule("learned", 30))
    whole = log_snr(make_schedule("linear", 1000))
    assert np.allclose(even, np.linspace(whole[0], whole[-1], 30))


def test_it_falls_whatever_its_parameters_are():
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 30.0, 1000.0):
        learned = LearnedLogSnr(make_schedule("learned", 100))
        with torch.no_grad():
            learned.shares.copy_(scale * torch.randn(99, generator=generator))
        values = learned().detach().numpy()
        assert (np.diff(values) < 0).all()
        assert values[[0, -1]] == pytest.approx([9.21024, -10.11766], abs=1e-4)
        learned.schedule()  # all betas lie in (0, 1)


@pytest.mark.parametrize("free", [True, False])
def test_ends_are_free_or_fixed(free):
    learned = LearnedLogSnr(make_schedule("learned", 10), free)
    learned().sum().backward()
    assert learned.shares.grad is not None
    assert (learned.first.grad is not None, learned.log_gap.grad is not None) == (free, free)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([3.0, 1.0, 2.0], "must fall from step to step, and from t = 1 to 2 they go from 1 to 2"),
        ([3.0, 3.0], "from t = 0 to 1 they go from 3 to 3"),
        ([40.0, 1.0], "log signal-to-noise ratio of 40 means abar = 1"),
        ([1.0, -math.inf], "finite"),
        ([1.0, math.nan], "finite"),
        ([], "vector"),
    ],
)
def test_a_schedule_that_is_none_is_one_sentence(values, words):
    with pytest.raises(DdpmError, match=words) as caught:
        schedule_from_log_snr(np.array(values))
    assert "\n" not in str(caught.value)


def test_one_step_has_nothing_to_learn():
    with pytest.raises(DdpmError, match="at least 2 steps"):
        LearnedLogSnr(make_schedule("linear", 1))


def test_the_weights_of_the_network_are_told_from_the_schedules():
    names = ("forward_variances.first", "conv_in.weight", "forward_variances_of_mine")
    found = without_schedule({name: torch.zeros(1) for name in names})
    assert list(found) == ["conv_in.weight", "forward_variances_of_mine"]


# -- the bound with an exact denoiser ------------------------------------------------------------


def nodes():
    """x_0 and eps with their weights: Gauss-Hermite in either, for both Gaussians."""
    places, weights = np.polynomial.hermite_e.hermegauss(16)
    noise, of_noise = np.polynomial.hermite_e.hermegauss(40)
    weights, of_noise = weights / weights.sum(), of_noise / of_noise.sum()
    x, w = [], []
    for mean in MEANS:
        x.append(np.repeat(mean + WIDTH * places, len(noise)))
        w.append(0.5 * np.outer(weights, of_noise).ravel())
    eps = np.tile(noise, len(places) * len(MEANS))
    found = (torch.tensor(v)[:, None] for v in (np.concatenate(x), eps))
    return *found, torch.tensor(np.concatenate(w))


X, EPS, WEIGHTS = nodes()


def exact_noise(x_t, abar):
    """E[eps | x_t] of the mixture, at abar [n, 1]."""
    means = torch.tensor(MEANS, dtype=torch.float64)
    variance = abar * WIDTH**2 + 1 - abar
    away = abar.sqrt() * means - x_t
    share = (-away.square() / (2 * variance)).softmax(1)
    return -(1 - abar).sqrt() * (share * away).sum(1, keepdim=True) / variance


def denoiser_of(abar):
    """The exact denoiser of a chain with these abar, [T]; no gradient reaches them here."""
    abar = torch.tensor(abar)
    return lambda x, t: exact_noise(x, abar[t][:, None])


def of_schedule(schedule):
    """The diffusion of a schedule for the mixture."""
    return GaussianDiffusion(schedule, variance_type="fixed_small", clip_sample=False)


def steps_cost(diffusion):
    """[T - 1], L_1..L_{T-1} (Eq. 5) in bits, all exactly."""
    denoiser = denoiser_of(diffusion.schedule.alphas_cumprod)
    found = []
    for i in range(1, diffusion.num_timesteps):
        t = torch.full((len(X),), i)
        x_t = diffusion.q_sample(X, t, EPS)
        found.append((WEIGHTS * vb_term(diffusion, denoiser, X, x_t, t)[0]).sum())
    return torch.stack(found)


def noise_error(values):
    """E|eps - E[eps | x_t]|^2 at log SNRs [k]."""
    abar = torch.sigmoid(torch.as_tensor(values))[:, None, None]
    x_t = abar.sqrt() * X + (1 - abar).sqrt() * EPS
    errors = [
        ((EPS - exact_noise(x, a)) ** 2)[:, 0] @ WEIGHTS for x, a in zip(x_t, abar, strict=True)
    ]
    return torch.stack(errors).numpy()


def bent(total, first=6.0, last=-6.0):
    """Log SNRs between the ends of an even schedule, but spent mostly at one side."""
    return first + (last - first) * np.linspace(0, 1, total) ** 4


def test_in_the_limit_of_many_steps_the_schedule_between_its_ends_does_not_matter():
    fine = np.linspace(6, -6, 4001)
    # 1/2 the integral of the error of the noise over log SNR, in bits.
    limit = np.trapezoid(noise_error(fine), -fine) / (2 * math.log(2))
    apart, above = [], []
    for total in (51, 201, 801):
        costs = [
            float(steps_cost(of_schedule(schedule_from_log_snr(values))).sum())
            for values in (np.linspace(6, -6, total), bent(total))
        ]
        apart.append(abs(costs[0] - costs[1]))
        above.append(costs[0] - limit)
    # Either difference falls as 1 / T.
    assert apart[0] > 0.01
    assert apart[0] / apart[1] == pytest.approx(4, rel=0.25)
    assert apart[1] / apart[2] == pytest.approx(4, rel=0.1)
    assert above[1] / above[2] == pytest.approx(4, rel=0.1)
    assert above[2] < 0.01 * limit


def cheapest(total, grid):
    """The least cost of `total` levels out of a grid, from its first to its last, in bits, by
    dynamic programming over 1/2 (SNR(s) / SNR(t) - 1) E|eps - eps*|^2 (Eq. 12)."""
    error = noise_error(grid)
    step = 0.5 * (np.exp(grid[:, None] - grid) - 1) * error / math.log(2)
    step[np.tril_indices(len(grid))] = np.inf  # from s to a later t only
    best = step[0]
    for _ in range(total - 2):
        best = (best[:, None] + step).min(0)
    return best[-1]


def test_with_few_steps_learning_finds_the_cheapest_schedule():
    learned = LearnedLogSnr(schedule_from_log_snr(np.linspace(6, -6, 8)), free_ends=False)
    like = of_schedule(make_schedule("linear", 8))
    optimizer = torch.optim.Adam([learned.shares], lr=0.05)
    begun = None
    for _ in range(120):
        diffusion = learned_diffusion(learned, like)
        cost = followed(diffusion, learned())
        begun = float(cost.detach()) if begun is None else begun
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    found = float(steps_cost(of_schedule(learned.schedule())).sum())
    best = cheapest(8, np.linspace(6, -6, 241))
    assert begun > 1.2 * best
    # The grid's best is at most a grid's width away from the best of all.
    assert found == pytest.approx(best, rel=2e-3)


def followed(diffusion, values):
    """L_1..L_{T-1} where the denoiser is told the noise level itself, with all gradients."""
    abar = torch.sigmoid(values)

    def denoiser(x, t):
        return exact_noise(x, abar[t][:, None])

    total = 0.0
    for i in range(1, len(values)):
        t = torch.full((len(X),), i)
        x_t = diffusion.q_sample(X, t, EPS)
        total = total + (WEIGHTS * vb_term(diffusion, denoiser, X, x_t, t)[0]).sum()
    return total


# -- the estimate that is trained on -------------------------------------------------------------


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_estimate_is_right_on_average_and_so_is_its_gradient(variance):
    """Over all t the estimate is the whole bound, and its gradient that of finite differences."""
    learned = LearnedLogSnr(schedule_from_log_snr(np.linspace(5, -5, 6)))
    like = GaussianDiffusion(make_schedule("linear", 6), variance_type=variance)
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 17, (2, 1, 4, 4), generator=generator)
    x = levels.double() / 8 - 1
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def denoiser(x_t, t):
        return 0.8 * x_t * torch.cos(t.double())[:, None, None, None]

    def whole(schedule):
        diffusion = GaussianDiffusion(schedule, variance_type=variance, clip_sample=False)
        total = prior_bpd(diffusion, x)
        for i in range(6):
            t = torch.full((2,), i)
            total = (
                total + vb_term(diffusion, denoiser, x, diffusion.q_sample(x, t, noise), t, 17)[0]
            )
        return total

    def estimate():
        times = BoundTimes(learned.schedule(), x.device)
        middles = times.cumulative - times.probability / 2
        found = 0.0
        for middle, share in zip(middles, times.probability, strict=True):
            how = learned, like, denoiser, x, middle.repeat(2), noise, 17
            found = found + share * bound_loss(*how)
        return found

    assert torch.allclose(estimate(), whole(learned.schedule()), rtol=1e-9)
    estimate().sum().backward()
    for weight in learned.parameters():
        flat, step = weight.data.view(-1), 2**-8
        for i in range(len(flat)):
            kept, sides = float(flat[i]), []
            for sign in (1, -1):
                flat[i] = kept + sign * step
                sides.append(float(whole(learned.schedule()).sum()))
            flat[i] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            assert float(weight.grad.view(-1)[i]) == pytest.approx(slope, rel=1e-2, abs=1e-3)
