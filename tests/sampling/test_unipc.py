"""UniPC: its order on an ODE that is solved by hand, against diffusers, and at the ends."""

import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.trajectory import even_timesteps, quadratic_timesteps
from ddpm.sampling import DpmSolver, UniPc, get_sampler
from ddpm.sampling.unipc import phi, step_weights
from sampling.gaussian_ode import errors_of_halved_steps, no_noise
from typecheck import unchecked

BOTH = [UniPc(order=2), UniPc(order=3)]


@pytest.mark.parametrize("sampler", [*BOTH, UniPc(2, "bh1"), UniPc(3, "bh1")])
def test_half_the_step_gives_an_eighth_of_the_error(sampler):
    """Order three, which the first step of all, without predecessors, holds order 3 down to."""
    found = errors_of_halved_steps(sampler)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(found)]
    assert orders[-1] == pytest.approx(3, abs=0.15)
    assert found[0] > 100 * found[-1] > 0


def test_order_three_errs_less_than_order_two_and_both_less_than_dpm_solver():
    errors = [errors_of_halved_steps(s)[-1] for s in (UniPc(3), UniPc(2), DpmSolver())]
    assert errors[0] < errors[1] / 2 < errors[2] / 10


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 12])
def test_every_step_equals_diffusers(prediction, variant, order, steps):
    theirs = UniPCMultistepScheduler(
        solver_order=order,
        solver_type=variant,
        prediction_type=prediction,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(steps)
    visited = sorted(theirs.timesteps.tolist())
    chain = GaussianDiffusion(make_schedule(), prediction, clip_sample=False).respace(visited)
    noise_levels = np.append(1 / np.sqrt(chain.schedule.snr[::-1]), 0.0)
    theirs.sigmas = torch.from_numpy(noise_levels)  # ours are float64
    start = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def denoiser(x, t):  # any smooth function of x and t
        return torch.tanh(x) * (1 + t.reshape(-1, 1, 1, 1) / 1000)

    expected, at = start, []
    for t in theirs.timesteps:
        at.append(expected)
        expected = theirs.step(denoiser(expected, t.expand(3)), t, expected).prev_sample
    seen = []
    found = UniPc(order, variant)(chain, denoiser, start, no_noise, callback=seen.append)
    for x, state in zip(at, seen, strict=True):
        assert torch.allclose(x, state.x_t, rtol=1e-9, atol=1e-9)
    if variant == "bh2":  # theirs with bh1 makes a NaN of the step to sigma = 0
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", BOTH)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_a_step_costs_one_call_and_begins_anywhere(sampler, steps):
    chain = GaussianDiffusion(make_schedule()).respace(even_timesteps(1000, 10))
    asked, seen = [], []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return 0.1 * x

    x = torch.randn(2, 1, 2, 2)
    sampler(chain, denoiser, x, no_noise, start=steps - 1, callback=seen.append)
    assert asked == chain.schedule.timesteps[:steps][::-1].tolist()
    assert [state.index for state in seen] == list(range(steps))[::-1]
    assert torch.equal(seen[0].x_t, x)


@pytest.mark.parametrize("sampler", BOTH)
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_a_chain_that_begins_in_pure_noise_ends_where_dpm_solver_does(sampler, prediction, steps):
    """x_0 is one constant image: every solver is exact for it, from pure noise as well."""
    whole = GaussianDiffusion(make_schedule("jsd", 10), prediction, clip_sample=False)
    chain = whole.respace(even_timesteps(10, steps))
    image = torch.full((2, 1, 2, 2), 0.3)

    def denoiser(x, t):
        return whole.from_xstart(image, x, t)

    found = sampler(chain, denoiser, torch.randn(2, 1, 2, 2), no_noise)
    assert torch.allclose(found, image, atol=1e-5)


@pytest.mark.parametrize("sampler", BOTH)
def test_several_steps_without_signal_lead_to_the_first_that_has_some(sampler):
    """abar underflows to 0 long before the end of such a chain."""
    steep = GaussianDiffusion(make_schedule("const", 1100, beta_end=0.5), "sample")
    assert steep.schedule.alphas_cumprod[-2] == 0
    found = sampler(steep, lambda x, t: x.clamp(-1, 1), torch.randn(1, 1, 2, 2), no_noise)
    assert found.isfinite().all()


def test_the_predicted_image_is_clipped_as_the_model_has_it():
    chain = GaussianDiffusion(make_schedule(), "sample").respace(quadratic_timesteps(1000, 5))
    for sampler in BOTH:
        found = sampler(chain, lambda x, t: 5 + 0 * x, torch.randn(2, 1, 2, 2), no_noise)
        assert torch.equal(found, torch.ones(2, 1, 2, 2))


def test_weights_are_exact_for_polynomials():
    """An x_0 that is lambda or its square: the step's integral by quadrature."""
    h = 0.7
    grid = np.linspace(0, h, 20_001)
    decay = np.exp(grid - h)  # the weight of D(lambda) in x_s / alpha_s

    def step(values):
        return np.sum((decay[1:] * values[1:] + decay[:-1] * values[:-1]) / 2 * np.diff(grid))

    offsets = [-0.8, -2.1, 1.0]
    weights = np.array(step_weights(offsets, h, "bh2"))
    for power in (1, 2, 3):
        nodes = (np.array(offsets) * h) ** power
        assert -weights @ nodes == pytest.approx(step(grid**power), rel=1e-7)


def test_phi_is_the_same_on_both_sides_of_the_series():
    for k in (1, 2, 3, 4):
        assert phi(k, -0.999999) == pytest.approx(phi(k, -1.000001), rel=1e-5)
        assert phi(k, -1e-9) == pytest.approx(1 / math.factorial(k), rel=1e-8)


def test_names_and_wrong_use():
    assert get_sampler("unipc") == UniPc(order=2, variant="bh2")
    assert get_sampler("unipc3") == UniPc(order=3)
    with unchecked():
        for options, words in (
            ({"order": 1}, "must be 2 or 3, got 1"),
            ({"order": 4}, "must be 2 or 3, got 4"),
            ({"variant": "bh3"}, "unknown variant 'bh3' of unipc; choose from bh1, bh2"),
        ):
            with pytest.raises(DdpmError, match=words):
                UniPc(**options)
