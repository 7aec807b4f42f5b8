"""The schedule's constants against the paper's numbers, other implementations and brute force."""

import numpy as np
import pytest
from diffusers import DDPMScheduler

from ddpm.diffusion.schedule import SCHEDULES, NoiseSchedule, make_schedule, schedule_from_betas
from ddpm.errors import DdpmError


def test_the_papers_constants():
    schedule = make_schedule()
    assert schedule.num_timesteps == 1000
    assert schedule.betas.dtype == np.float64
    assert (schedule.betas[0], schedule.betas[-1]) == (1e-4, 0.02)
    assert schedule.alphas_cumprod[-1] == pytest.approx(4.04e-5, rel=2e-3)
    assert schedule.posterior_variance[0] == 0
    assert schedule.posterior_variance[1] == pytest.approx(5.45e-5, rel=2e-3)
    assert schedule.fixed_large_variance[0] == schedule.posterior_variance[1]


def test_the_authors_other_schedules():
    """Each entry written out from its definition."""
    t = range(20)
    start, end = 1e-3, 0.3
    expected = {
        "quad": [(start**0.5 + (end**0.5 - start**0.5) * i / 19) ** 2 for i in t],
        "const": [end for _ in t],
        "warmup10": [start, end] + [end] * 18,
        "warmup50": [start + (end - start) * i / 9 for i in range(10)] + [end] * 10,
        "jsd": [1 / (20 - i) for i in t],
    }
    for name, betas in expected.items():
        found = make_schedule(name, 20, start, end).betas
        assert found == pytest.approx(betas, rel=1e-12), name


@pytest.mark.parametrize(("ours", "theirs"), [("cosine", "squaredcos_cap_v2"), ("sigmoid",) * 2])
def test_cosine_and_sigmoid_equal_diffusers(ours, theirs):
    expected = DDPMScheduler(beta_schedule=theirs).betas.numpy()
    assert make_schedule(ours).betas == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "jsd"])
def test_no_constant_of_any_schedule_is_infinite_or_out_of_range(name):
    schedule = make_schedule(name)
    for field in ("sqrt_recip_alphas_cumprod", "posterior_log_variance_clipped"):
        assert np.isfinite(getattr(schedule, field)).all()
    assert ((schedule.alphas_cumprod > 0) & (schedule.alphas_cumprod < 1)).all()
    assert (np.diff(schedule.alphas_cumprod) < 0).all()


def test_betas_are_not_rescaled_with_the_number_of_steps():
    assert make_schedule(timesteps=10).betas[[0, -1]].tolist() == [1e-4, 0.02]


def test_a_respaced_chain_has_the_same_marginals():
    whole, steps = make_schedule(), [0, 3, 250, 999]
    short = whole.respace(steps)
    assert short.alphas_cumprod == pytest.approx(whole.alphas_cumprod[steps], rel=1e-12)
    assert short.timesteps.tolist() == steps
    assert short.respace([1, 3]).timesteps.tolist() == [3, 999]
    # And its step 2 -> 1 is the whole chain's steps 250 -> 3 one after the other.
    assert short.alphas[2] == pytest.approx(np.prod(whole.alphas[4:251]), rel=1e-9)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([], "at least one"),
        (np.array([[0.1]]), "vector"),
        ([0.1, float("nan")], "finite"),
        ([0.1, 0.0], r"betas\[1\] is 0"),
        ([-0.1, 0.2], r"betas\[0\] is -0.1"),
        ([0.5, 1.5], r"betas\[1\] is 1.5"),
        ([1.0, 0.5], "only the last"),
    ],
)
def test_bad_betas_are_refused(betas, message):
    with pytest.raises(DdpmError, match=message):
        schedule_from_betas(betas)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "linaer"},
        {"timesteps": 0},
        {"beta_start": 0.1},
        {"beta_start": 0.0},
        {"beta_end": 1.5},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(DdpmError):
        make_schedule(**arguments)


@pytest.mark.parametrize("steps", [[], [3, 3], [5, 2], [-1, 4], [0, 10]])
def test_bad_trajectories_are_refused(steps):
    with pytest.raises(DdpmError):
        make_schedule(timesteps=10).respace(steps)


def test_constants_cannot_be_changed_by_accident():
    schedule = NoiseSchedule(np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="read-only"):
        schedule.betas[0] = 0.5
