"""The forward and reverse process against brute force in float64 and against diffusers."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError

PREDICTIONS = ("epsilon", "sample", "previous_mean", "v_prediction")
SHAPES = [(4, 1, 8, 8), (4, 3, 6, 10)]


def test_a_thousand_single_steps_are_the_closed_form_marginal():
    schedule = make_schedule()
    mean, variance = np.longdouble(1.0), np.longdouble(0.0)
    diffusion = GaussianDiffusion(schedule)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for t, beta in enumerate(schedule.betas):
        mean *= np.sqrt(1 - np.longdouble(beta))
        variance = (1 - np.longdouble(beta)) * variance + np.longdouble(beta)
        found_mean, found_variance, found_log = diffusion.q_mean_variance(x, torch.tensor([t]))
        assert found_mean.item() == pytest.approx(float(mean), rel=1e-12)
        assert found_variance.item() == pytest.approx(float(variance), rel=1e-12)
        assert found_log.item() == pytest.approx(float(np.log(variance)), abs=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "quad"])
def test_the_posterior_is_the_joint_gaussian_conditioned(name):
    schedule = make_schedule(name, 50)
    diffusion = GaussianDiffusion(schedule)
    x_start, x_t = 0.3, -0.7
    for t in range(1, 50):
        before, beta = schedule.alphas_cumprod[t - 1], schedule.betas[t]
        # joint of (x_{t-1}, x_t) given x_0
        mean = np.array([np.sqrt(before), np.sqrt(before * (1 - beta))]) * x_start
        cross = np.sqrt(1 - beta) * (1 - before)
        after = (1 - beta) * (1 - before) + beta
        expected_mean = mean[0] + cross / after * (x_t - mean[1])
        expected_variance = (1 - before) - cross**2 / after
        found = diffusion.q_posterior_mean_variance(
            torch.full((1, 1, 1, 1), x_start, dtype=torch.float64),
            torch.full((1, 1, 1, 1), x_t, dtype=torch.float64),
            torch.tensor([t]),
        )
        assert found[0].item() == pytest.approx(expected_mean, rel=1e-9)
        assert found[1].item() == pytest.approx(expected_variance, rel=1e-9)
        assert found[2].exp().item() == pytest.approx(expected_variance, rel=1e-9)


def test_float32_constants_are_rounded_float64_ones():
    """A schedule computed in float32 is off by 1e-4 and more in some coefficients."""
    schedule = make_schedule()
    diffusion, like = GaussianDiffusion(schedule), torch.zeros(1000, 1, 1, 1)
    t = torch.arange(1000)
    abar = np.cumprod(1 - np.linspace(np.longdouble(1e-4), np.longdouble(0.02), 1000))
    previous = np.append(np.longdouble(1), abar[:-1])
    betas = np.linspace(np.longdouble(1e-4), np.longdouble(0.02), 1000)
    exact = {
        "posterior_mean_coef1": betas * np.sqrt(previous) / (1 - abar),
        "posterior_mean_coef2": (1 - previous) * np.sqrt(1 - betas) / (1 - abar),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / abar - 1),
    }
    for name, value in exact.items():
        found = diffusion.coefficient(name, t, like).flatten()
        assert found.dtype == torch.float32
        assert found.numpy() == pytest.approx(value.astype(np.float64), rel=2e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", PREDICTIONS)
@pytest.mark.parametrize("target", PREDICTIONS)
def test_every_prediction_converts_to_every_other(shape, source, target):
    schedule = make_schedule(timesteps=40)
    x_start = torch.rand(shape, dtype=torch.float64) * 2 - 1
    noise, t = torch.randn_like(x_start), torch.tensor([0, 7, 20, 39])
    base = GaussianDiffusion(schedule)
    x_t = base.q_sample(x_start, t, noise)
    alpha = base.coefficient("sqrt_alphas_cumprod", t, x_t)
    sigma = base.coefficient("sqrt_one_minus_alphas_cumprod", t, x_t)
    known = {
        "epsilon": noise,
        "sample": x_start,
        "previous_mean": base.q_posterior_mean_variance(x_start, x_t, t)[0],
        "v_prediction": alpha * noise - sigma * x_start,
    }
    diffusion = GaussianDiffusion(schedule, source)
    assert torch.allclose(diffusion.to_xstart(known[source], x_t, t), x_start, atol=1e-9)
    found = diffusion.convert(known[source], x_t, t, target)
    assert torch.allclose(found, known[target], atol=1e-9)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [True, False])
def test_a_reverse_step_equals_the_diffusers_scheduler(prediction, variance, clip):
    theirs = DDPMScheduler(
        beta_schedule="linear",
        prediction_type=prediction,
        variance_type=variance,
        clip_sample=clip,
    )
    # Their schedule is float32, which is off by 1e-4 near t = 0; the same formulas in float64:
    theirs.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    theirs.alphas = 1 - theirs.betas
    theirs.alphas_cumprod = theirs.alphas.cumprod(0)
    ours = GaussianDiffusion(make_schedule(), prediction, variance, clip)
    x, output = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
    for t in (0, 1, 2, 10, 500, 998, 999):
        p = ours.p_mean_variance(lambda x, t: output, x, torch.full((2,), t))
        step = theirs.step(output, t, x, generator=torch.Generator().manual_seed(3))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        expected = p.mean + (p.variance.sqrt() * noise if t > 0 else 0)
        assert torch.allclose(step.prev_sample.float(), expected, rtol=1e-5, atol=1e-6)
        original = step.pred_original_sample.float()
        assert torch.allclose(original, p.pred_xstart, rtol=1e-5, atol=1e-4)


def test_clipping_is_of_x_0_and_before_the_mean_is_formed():
    diffusion = GaussianDiffusion(make_schedule(), "sample", "fixed_small", True)
    x, t = torch.full((1, 1, 2, 2), 0.2), torch.tensor([300])
    p = diffusion.p_mean_variance(lambda x, t: torch.full_like(x, 5.0), x, t)
    schedule = diffusion.schedule
    expected = schedule.posterior_mean_coef1[300] * 1.0 + schedule.posterior_mean_coef2[300] * 0.2
    assert p.pred_xstart.unique().tolist() == [1.0]
    assert p.mean[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-5)
    # A mean outside [-1, 1] stays as it is.
    far = torch.full((1, 1, 2, 2), 3.0)
    assert diffusion.p_mean_variance(lambda x, t: far, far, t).mean.min().item() > 2


def test_a_predicted_mean_is_taken_as_it_is():
    diffusion = GaussianDiffusion(make_schedule(), "previous_mean", "fixed_small", True)
    x, mean = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    p = diffusion.p_mean_variance(lambda x, t: mean, x, torch.tensor([5, 900]))
    assert torch.equal(p.mean, mean)
    assert float(p.pred_xstart.abs().max()) <= 1


def test_the_learned_output_is_a_log_variance():
    diffusion = GaussianDiffusion(make_schedule(), "epsilon", "learned")
    x = torch.randn(1, 3, 2, 2)
    output = torch.cat([torch.zeros_like(x), torch.full_like(x, -2.0)], dim=1)
    p = diffusion.p_mean_variance(lambda x, t: output, x, torch.tensor([4]))
    assert p.log_variance.unique().tolist() == [-2.0]
    assert p.variance[0, 0, 0, 0].item() == pytest.approx(np.exp(-2.0))


def test_the_learned_range_runs_from_the_posterior_variance_to_beta():
    diffusion = GaussianDiffusion(make_schedule(), "epsilon", "learned_range")
    schedule, x, t = diffusion.schedule, torch.randn(1, 1, 2, 2), torch.tensor([50])
    for value, expected in (
        (-1.0, schedule.posterior_variance[50]),
        (1.0, schedule.betas[50]),
        (0.0, np.sqrt(schedule.posterior_variance[50] * schedule.betas[50])),
    ):
        output = torch.cat([torch.zeros_like(x), torch.full_like(x, value)], dim=1)
        p = diffusion.p_mean_variance(lambda x, t, o=output: o, x, t)
        assert p.variance[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_fixed_variances_replace_their_first_entry():
    for variance, at_500 in (("fixed_large", "betas"), ("fixed_small", "posterior_variance")):
        diffusion = GaussianDiffusion(make_schedule(), "epsilon", variance)
        x = torch.zeros(2, 1, 1, 1)
        p = diffusion.p_mean_variance(lambda x, t: x, x, torch.tensor([0, 500]))
        assert p.variance[0].item() == pytest.approx(5.45e-5, rel=2e-3)
        expected = getattr(diffusion.schedule, at_500)[500]
        assert p.variance[1].item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_outputs_do_not_make_the_maths_half_precision():
    diffusion = GaussianDiffusion(make_schedule())
    x = torch.randn(2, 1, 4, 4)
    p = diffusion.p_mean_variance(lambda x, t: x.bfloat16(), x, torch.tensor([3, 700]))
    assert {p.mean.dtype, p.variance.dtype, p.pred_xstart.dtype} == {torch.float32}


def test_the_network_is_told_the_original_time_of_a_respaced_chain():
    diffusion, told = GaussianDiffusion(make_schedule()).respace([3, 500, 999]), []

    def denoiser(x, t):
        told.extend(t.tolist())
        return x

    diffusion.p_mean_variance(denoiser, torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]))
    assert told == [3, 500, 999]


def test_wrong_use_gives_a_sentence():
    x, t = torch.zeros(1, 3, 2, 2), torch.tensor([1])
    learned = GaussianDiffusion(make_schedule(), variance_type="learned")
    with pytest.raises(DdpmError, match="learned"):
        learned.p_mean_variance(lambda x, t: x, x, t)
    with pytest.raises(DdpmError, match="pure noise"):
        GaussianDiffusion(make_schedule("jsd"))
    GaussianDiffusion(make_schedule("jsd"), "v_prediction")
