"""Trajectories: brute force on a small table, order against the even one, predictions kept."""

import itertools

import numpy as np
import pytest
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.bound import evaluate_bound
from ddpm.likelihood.denoising_error import (
    ErrorTable,
    load_errors,
    measure_errors,
    measured_timesteps,
    shrink,
)
from ddpm.likelihood.trajectory import (
    choose_timesteps,
    optimal_timesteps,
    predicted_bpd,
    quadratic_timesteps,
    step_costs,
)
from likelihood.test_bound import gaussian_denoiser, gaussian_images


def random_errors(total, pixels=4):
    rng = np.random.default_rng(0)
    mse = np.sort(rng.uniform(1e-4, 1, (total, pixels)), axis=0).reshape(total, 1, 2, 2)
    return ErrorTable(mse, np.sort(rng.uniform(0.1, 5, total)), 100)


def test_the_optimal_trajectory_equals_brute_force():
    schedule, errors = make_schedule(timesteps=9, beta_end=0.3), random_errors(9)
    for k in range(1, 10):
        candidates = [np.array([*middle, 8]) for middle in itertools.combinations(range(8), k - 1)]
        best = min(predicted_bpd(schedule, errors, steps) for steps in candidates)
        found = optimal_timesteps(schedule, errors, k)
        assert len(found) == k
        assert predicted_bpd(schedule, errors, found) == pytest.approx(best)


def test_a_step_costs_the_kl_between_the_posterior_and_the_best_reverse_step():
    """Against the respaced chain's own constants: 1/2 log2((beta~ + coef1^2 mse) / beta~)."""
    schedule, errors = make_schedule(timesteps=50), random_errors(50)
    costs = step_costs(schedule, errors.xstart_mse)
    for t, s in ((1, 0), (17, 3), (49, 30)):
        chain = schedule.respace([s, t])
        variance, coef1 = chain.posterior_variance[1], chain.posterior_mean_coef1[1]
        ratio = (variance + coef1**2 * errors.xstart_mse[t]) / variance
        assert costs[t, s] == pytest.approx(0.5 * np.log2(ratio).mean(), rel=1e-6)
    assert np.isinf(costs[3, 3:]).all()


def test_optimal_is_never_worse_than_even_or_quadratic():
    schedule, errors = make_schedule(timesteps=100), random_errors(100)
    for k in (1, 2, 5, 20, 99, 100):
        prices = {
            name: predicted_bpd(schedule, errors, choose_timesteps(name, schedule, k, errors))
            for name in ("even", "quadratic", "optimal")
        }
        assert prices["optimal"] <= min(prices.values()) + 1e-9


def test_the_predicted_bits_are_the_measured_ones_within_two_percent():
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)
    denoiser = gaussian_denoiser(diffusion)
    errors = measure_errors(diffusion, denoiser, gaussian_images(200, 8), 256)
    held_out = gaussian_images(200, 8)
    analytic = diffusion.with_variance("analytic", errors.xstart_mse)
    for k in (4, 12):
        steps = optimal_timesteps(diffusion.schedule, errors, k)
        bound = evaluate_bound(analytic.respace(steps), denoiser, held_out, 256)
        predicted = predicted_bpd(diffusion.schedule, errors, steps)
        assert bound.terms.sum(axis=1).mean() == pytest.approx(predicted, rel=0.02)


def test_measured_errors_are_the_optimal_denoisers_known_ones():
    diffusion = GaussianDiffusion(make_schedule(), clip_sample=False)
    errors = measure_errors(diffusion, gaussian_denoiser(diffusion), gaussian_images(100, 16), 256)
    abar = diffusion.schedule.alphas_cumprod
    known = 0.04 * (1 - abar) / (abar * 0.04 + 1 - abar)
    assert errors.xstart_mse.mean(axis=(1, 2, 3)) == pytest.approx(known, rel=0.05)


def test_a_pixel_that_never_erred_keeps_a_share_of_the_mean_error():
    table = np.array([[0.0, 2e-2]])
    assert shrink(table, 99)[0] == pytest.approx([1e-4, 0.0199], rel=1e-6)
    assert shrink(np.array([[5.0, 5.0]]), 10).max() == 1.0


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


def test_wrong_use_gives_a_sentence(tmp_path):
    schedule = make_schedule(timesteps=10)
    with pytest.raises(DdpmError, match="unknown trajectory"):
        choose_timesteps("best", schedule, 3)
    with pytest.raises(DdpmError, match=r"1\.\.10"):
        choose_timesteps("quadratic", schedule, 11)
    with pytest.raises(DdpmError, match="measured errors"):
        choose_timesteps("optimal", schedule, 3)
    with pytest.raises(DdpmError, match="measured errors"):
        GaussianDiffusion(schedule, variance_type="analytic")


def test_a_table_of_another_model_is_not_used(tmp_path):
    errors, path = random_errors(5), tmp_path / "errors.safetensors"
    errors.save(path, "model-a")
    assert load_errors(path, "model-b") is None
    assert load_errors(tmp_path / "none", "model-a") is None
    loaded = load_errors(path, "model-a")
    assert loaded is not None
    assert np.array_equal(loaded.xstart_mse, errors.xstart_mse)
    assert np.array_equal(loaded.decoder_bpd, errors.decoder_bpd)
    assert torch.from_numpy(loaded.decoder_bpd).dtype == torch.float64


def test_pixels_priced_in_groups_cost_what_they_cost_one_by_one():
    schedule = make_schedule(timesteps=30)
    spread = np.exp(np.random.default_rng(0).normal(0, 0.7, (30, 1001)))
    errors = 0.01 * spread * np.linspace(0.01, 1, 30)[:, None]
    grouped = step_costs(schedule, errors)
    exact = np.mean([step_costs(schedule, pixel) for pixel in errors.T], axis=0)
    below = np.tril_indices(30, -1)
    assert grouped[below] == pytest.approx(exact[below], rel=3e-3)
    mean = step_costs(schedule, errors.mean(axis=1))
    assert np.abs(mean[below] / exact[below] - 1).max() > 0.03  # one price for all would not do
    assert np.isinf(grouped[np.triu_indices(30)]).all()
