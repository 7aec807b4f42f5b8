"""Trajectories: brute force on a small table, order against the even one, predictions kept."""

import itertools

import numpy as np
import pytest

from ddpm.data.images import ImageFormat
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import evaluate_bound
from ddpm.likelihood.denoising_error import (
    DenoisingError,
    measure_denoising_error,
    measured_timesteps,
)
from ddpm.likelihood.plan import Plan
from ddpm.likelihood.prediction_error import shrink
from ddpm.likelihood.trajectory import (
    even_timesteps,
    optimal_timesteps,
    predicted_bpd,
    quadratic_timesteps,
    step_costs,
)
from likelihood.test_bound import gaussian_denoiser, gaussian_images
from typecheck import unchecked


def every_timestep(mse, decoder):
    """A denoising error that was measured at all timesteps."""
    return DenoisingError(np.arange(len(mse)), mse, decoder, 100)


def random_error(total, pixels=4):
    rng = np.random.default_rng(0)
    mse = np.sort(rng.uniform(1e-4, 1, (total, pixels)), axis=0).reshape(total, 1, 2, 2)
    return every_timestep(mse, np.sort(rng.uniform(0.1, 5, total)))


def chosen(trajectory, total, k, error=None):
    """The timesteps of a plan."""
    diffusion = GaussianDiffusion(make_schedule(timesteps=total, beta_end=0.3))
    return Plan(k, trajectory).timesteps(diffusion, error)


def test_the_optimal_trajectory_equals_brute_force():
    schedule, errors = make_schedule(timesteps=9, beta_end=0.3), random_error(9)
    for k in range(1, 10):
        candidates = [np.array([*middle, 8]) for middle in itertools.combinations(range(8), k - 1)]
        best = min(predicted_bpd(schedule, errors, steps) for steps in candidates)
        found = optimal_timesteps(schedule, errors, k)
        assert len(found) == k
        assert predicted_bpd(schedule, errors, found) == pytest.approx(best)


def test_a_step_costs_the_kl_between_the_posterior_and_the_best_reverse_step():
    """Against the respaced chain's own constants: 1/2 log2((beta~ + coef1^2 mse) / beta~)."""
    schedule, errors = make_schedule(timesteps=50), random_error(50)
    costs = step_costs(schedule, errors)
    for t, s in ((1, 0), (17, 3), (49, 30)):
        chain = schedule.respace([s, t])
        variance, coef1 = chain.posterior_variance[1], chain.posterior_mean_coef1[1]
        ratio = (variance + coef1**2 * errors.xstart_mse[t]) / variance
        assert costs[t, s] == pytest.approx(0.5 * np.log2(ratio).mean(), rel=1e-6)
    assert np.isinf(costs[3, 3:]).all()


def test_optimal_is_never_worse_than_even_or_quadratic():
    schedule, errors = make_schedule(timesteps=100, beta_end=0.3), random_error(100)
    for k in (1, 2, 5, 20, 99, 100):
        prices = {
            name: predicted_bpd(schedule, errors, chosen(name, 100, k, errors))
            for name in ("even", "quadratic", "optimal")
        }
        assert prices["optimal"] <= min(prices.values()) + 1e-9


def test_the_predicted_bits_are_the_measured_ones_within_two_percent():
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)
    denoiser = gaussian_denoiser(diffusion)
    errors = measure_denoising_error(
        diffusion, denoiser, gaussian_images(200, 8), ImageFormat(1, 8, 8)
    )
    held_out = gaussian_images(200, 8)
    analytic = diffusion.with_variance("analytic", errors.at)
    for k in (4, 12):
        steps = optimal_timesteps(diffusion.schedule, errors, k)
        bound = evaluate_bound(analytic.respace(steps), denoiser, held_out, ImageFormat(1, 8, 8))
        predicted = predicted_bpd(diffusion.schedule, errors, steps)
        assert bound.terms.sum() == pytest.approx(predicted, rel=0.02)


def test_measured_errors_are_the_optimal_denoisers_known_ones():
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)
    errors = measure_denoising_error(
        diffusion, gaussian_denoiser(diffusion), gaussian_images(100, 16), ImageFormat(1, 16, 16)
    )
    abar = diffusion.schedule.alphas_cumprod
    known = 0.04 * (1 - abar) / (abar * 0.04 + 1 - abar)
    measured = errors.xstart_mse.mean(axis=(1, 2, 3))
    assert measured == pytest.approx(known[errors.timesteps], rel=0.05)
    whole = errors.at(np.arange(1000)).mean(axis=(1, 2, 3))
    assert whole == pytest.approx(known, rel=0.05)


def test_a_pixel_that_never_erred_keeps_a_share_of_the_mean_error():
    assert shrink(np.array([0.0, 2e-2]), 99) == pytest.approx([1e-4, 0.0199], rel=1e-6)
    assert shrink(np.array([5.0, 5.0]), 10).max() == 1.0
    assert shrink(np.zeros(3), 10).min() > 0


def test_quadratic_is_denser_near_the_image_and_has_k_distinct_steps():
    for total, k in ((1000, 10), (1000, 1000), (20, 19), (7, 1)):
        steps = quadratic_timesteps(total, k)
        assert len(set(steps.tolist())) == k
        assert steps[-1] == total - 1
        assert steps[0] >= 0
    gaps = np.diff(quadratic_timesteps(1000, 10))
    assert gaps[0] < gaps[-1] / 5


def test_measured_timesteps_include_both_ends_of_any_chain():
    for total in (1, 5, 48, 49, 1000):
        times = measured_timesteps(total)
        assert times[0] == 0
        assert times[-1] == total - 1


def test_wrong_use_gives_a_sentence():
    for options, words in (
        ({"steps": 3, "trajectory": "best"}, "unknown trajectory 'best'; choose from even"),
        ({"steps": 3, "variance": "huge"}, "unknown variance 'huge'"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"steps": 3, "trajectory": (1, 9)}, "steps is 3, but 2 timesteps"),
    ):
        with unchecked(), pytest.raises(DdpmError, match=words):
            Plan(**options)
    with pytest.raises(DdpmError, match=r"1\.\.10"):
        chosen("quadratic", 10, 11)
    whole = GaussianDiffusion(make_schedule(timesteps=10))
    for plan in (Plan(3, "optimal"), Plan(variance="analytic")):
        with pytest.raises(DdpmError, match="has not been measured"):
            plan.chain(whole, None)
    for trajectory in ((), (0, 4)):
        with pytest.raises(DdpmError, match="must rise to T - 1 = 9"):
            Plan(trajectory=trajectory).chain(whole, None)
    with pytest.raises(DdpmError, match="increase and lie in"):
        Plan(trajectory=(3, 1, 9)).chain(whole, None)
    with pytest.raises(DdpmError, match="denoising error"):
        GaussianDiffusion(whole.schedule, variance_type="analytic")
    with pytest.raises(DdpmError, match="one positive entry"):
        every_timestep(np.zeros((3, 1, 2, 2)), np.ones(3))


def test_timesteps_can_be_given_one_by_one():
    whole = GaussianDiffusion(make_schedule(timesteps=10))
    with unchecked():  # a list is as good as a tuple, but cannot be a key
        plan = Plan(trajectory=[0, 4, 9])
    assert plan == Plan(trajectory=(0, 4, 9))
    assert plan.chain(whole, None).schedule.timesteps.tolist() == [0, 4, 9]
    assert Plan().chain(whole, None) is whole


def test_even_timesteps_have_both_ends():
    assert even_timesteps(1000, 1).tolist() == [999]
    for k in (2, 7, 50, 999, 1000):
        steps = even_timesteps(1000, k)
        assert len(set(steps.tolist())) == k
        assert (steps[0], steps[-1]) == (0, 999)
    for k in (0, 1001):
        with pytest.raises(DdpmError, match=r"1\.\.1000"):
            even_timesteps(1000, k)


def test_a_denoising_error_is_exact_where_measured_and_geometric_between():
    error = DenoisingError(
        np.array([0, 4, 6]),
        np.array([0.01, 0.16, 0.04]).reshape(3, 1, 1, 1),
        np.array([1.0, 2.0, 4.0]),
        10,
    )
    found = error.at(np.array([0, 2, 4, 5, 6]))[:, 0, 0, 0]
    assert found == pytest.approx([0.01, 0.04, 0.16, 0.08, 0.04])
    assert error.decoder_at(np.array([2, 5])).tolist() == [1.5, 3.0]
    again = DenoisingError.from_tensors(error.tensors())
    assert again.xstart_mse == pytest.approx(error.xstart_mse, rel=1e-7)
    assert again.timesteps.tolist() == [0, 4, 6]
    assert again.images == 10
    assert DenoisingError.from_tensors({}) is None
    alone = DenoisingError(np.array([0]), np.full((1, 1, 1, 1), 0.3), np.array([2.0]), 10)
    assert alone.at(np.array([0, 0])).reshape(-1).tolist() == [0.3, 0.3]


@pytest.mark.slow
def test_pixels_priced_in_groups_cost_what_they_cost_one_by_one():
    schedule = make_schedule(timesteps=30)
    spread = np.exp(np.random.default_rng(0).normal(0, 0.7, (30, 1001)))
    errors = 0.01 * spread * np.linspace(0.01, 1, 30)[:, None]

    def costs(mse):
        return step_costs(schedule, every_timestep(mse, np.ones(30)))

    grouped = costs(errors)
    exact = np.mean([costs(pixel[:, None]) for pixel in errors.T], axis=0)
    below = np.tril_indices(30, -1)
    assert grouped[below] == pytest.approx(exact[below], rel=3e-3)
    mean = costs(errors.mean(axis=1, keepdims=True))
    assert np.abs(mean[below] / exact[below] - 1).max() > 0.03  # one price for all would not do
    assert np.isinf(grouped[np.triu_indices(30)]).all()
