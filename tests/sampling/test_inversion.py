"""DDIM inversion on Gaussian data, whose equation has a closed form."""

import math

import pytest
import torch
from diffusers import DDIMInverseScheduler

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import make_schedule
from ddpm.errors import DdpmError
from ddpm.likelihood.trajectory import even_timesteps
from ddpm.sampling import Ddim
from ddpm.sampling.inversion import invert

pytestmark = pytest.mark.slow

MEAN, VARIANCE = 0.3, 0.2
FINE = make_schedule("const", 2000, 1e-3, 1e-3)  # abar_0 = 0.999, abar_T = 0.135


def eps_of_gaussian(diffusion, prediction="epsilon"):
    """What the optimal network says for pixels from N(MEAN, VARIANCE), each on its own."""
    whole = GaussianDiffusion(diffusion.schedule, prediction, clip_sample=False)

    def denoise(x, timesteps):
        a = whole.coefficient("alphas_cumprod", timesteps, x)
        x_start = MEAN + VARIANCE * a.sqrt() * (x - a.sqrt() * MEAN) / (a * VARIANCE + 1 - a)
        return whole.from_xstart(x_start, x, timesteps)

    return denoise


def exact(x, abar):
    """Where the equation leads: each quantile of the data to the same quantile of q(x_t)."""
    spread = math.sqrt((abar * VARIANCE + 1 - abar) / VARIANCE)
    return math.sqrt(abar) * MEAN + spread * (x - MEAN)


def images():
    return torch.linspace(-0.9, 0.9, 32, dtype=torch.float64).reshape(2, 1, 4, 4)


def no_noise(step):
    raise AssertionError("DDIM asks for none")


def chains(*counts, prediction="epsilon"):
    whole = GaussianDiffusion(FINE, prediction, clip_sample=False)
    return [(k, whole.respace(even_timesteps(whole.num_timesteps, k))) for k in counts]


@pytest.mark.parametrize("corrections", [0, 1])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "previous_mean"])
def test_it_converges_to_the_exact_solution_at_first_order(prediction, corrections):
    denoiser = eps_of_gaussian(GaussianDiffusion(FINE), prediction)
    errors = {}
    for k, chain in chains(100, 200, 400, 800, prediction=prediction):
        found = invert(chain, denoiser, images(), corrections=corrections)
        wanted = exact(images(), float(FINE.alphas_cumprod[-1]))
        errors[k] = float((found - wanted).abs().max())
    assert errors[800] < 0.05
    for k in (100, 200, 400):
        assert 1.6 < errors[k] / errors[2 * k] < 2.4, errors


@pytest.mark.parametrize(("corrections", "order"), [(0, 1), (1, 2)])
def test_ddim_returns_to_the_image_with_the_expected_order(corrections, order):
    denoiser = eps_of_gaussian(GaussianDiffusion(FINE))
    errors = {}
    for k, chain in chains(50, 100, 200, 400):
        x = invert(chain, denoiser, images(), corrections=corrections)
        back = Ddim()(chain, denoiser, x, no_noise)
        errors[k] = float((back - images()).abs().max())
    for k in (50, 100, 200):
        assert 0.85 * 2**order < errors[k] / errors[2 * k] < 1.2 * 2**order, errors


@pytest.mark.parametrize("stop", [0, 1, 7, 19])
def test_many_corrections_undo_ddim_exactly_from_every_level(stop):
    [(_, chain)] = chains(20)
    denoiser = eps_of_gaussian(GaussianDiffusion(FINE))
    x = invert(chain, denoiser, images(), stop=stop, corrections=60)
    back = Ddim()(chain, denoiser, x, no_noise, start=stop)
    assert torch.allclose(back, images(), atol=1e-9)


@pytest.mark.parametrize("corrections", [0, 2])
@pytest.mark.parametrize("stop", [None, 0, 2])
def test_every_step_asks_where_it_begins_and_its_corrections_where_it_ends(stop, corrections):
    chain = GaussianDiffusion(make_schedule()).respace([10, 300, 600, 999])
    asked = []

    def denoiser(x, t):
        asked.append(int(t[0]))
        return torch.zeros_like(x)

    x = images()
    found = invert(chain, denoiser, x, stop=stop, corrections=corrections)
    begins, ends = [10, 10, 300, 600], [10, 300, 600, 999]
    steps = 4 if stop is None else stop + 1
    wanted = [t for b, e in zip(begins, ends, strict=True) for t in [b] + [e] * corrections]
    assert asked == wanted[: steps * (1 + corrections)]
    # Without any noise in it the image only shrinks, to exactly the level asked for.
    abar = float(chain.schedule.alphas_cumprod[steps - 1])
    assert torch.allclose(found, math.sqrt(abar) * x)


def test_a_step_equals_diffusers():
    """Theirs asks where the step ends without ever having a guess of what is there."""
    theirs = DDIMInverseScheduler(clip_sample=False, set_alpha_to_one=False)
    theirs.alphas_cumprod = torch.from_numpy(make_schedule().alphas_cumprod.copy())
    theirs.set_timesteps(10)
    whole = GaussianDiffusion(make_schedule(), clip_sample=False)
    chain = whole.respace([0, *range(100, 1000, 100)])
    output = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    seen = []

    def denoiser(x, t):
        seen.append(x)
        return output

    found = invert(chain, denoiser, x, corrections=0)
    for before, after, t in zip(seen[1:], [*seen[2:], found], range(100, 1000, 100), strict=True):
        expected = theirs.step(output, t, before).prev_sample
        assert torch.allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_a_chain_that_ends_in_pure_noise_is_followed_to_its_end(prediction):
    chain = GaussianDiffusion(make_schedule("jsd", 10), prediction)
    found = invert(chain, lambda x, t: 0.5 * x, images())
    assert found.isfinite().all()


def test_a_learned_variance_makes_no_difference():
    denoiser = eps_of_gaussian(GaussianDiffusion(FINE))
    [(_, plain)] = chains(10)
    learned = GaussianDiffusion(FINE, "epsilon", "learned_range", clip_sample=False)
    learned = learned.respace(even_timesteps(learned.num_timesteps, 10))
    found = invert(learned, lambda x, t: torch.cat([denoiser(x, t), x], dim=1), images())
    assert torch.equal(found, invert(plain, denoiser, images()))


@pytest.mark.parametrize("stop", [3, 10, 19])
def test_steps_with_clipping_are_undone_too(stop):
    """The network overshoots by half, so that much is clipped on the way."""
    right = eps_of_gaussian(GaussianDiffusion(FINE), "sample")
    chain = GaussianDiffusion(FINE, "sample", clip_sample=True)
    chain = chain.respace(even_timesteps(chain.num_timesteps, 20))
    seen = []

    def denoiser(x, t):
        seen.append(1.5 * right(x, t))
        return seen[-1]

    inside = images().clamp(-0.6, 0.6)
    x = invert(chain, denoiser, inside, stop=stop, corrections=200)
    back = Ddim()(chain, denoiser, x, no_noise, start=stop)
    assert torch.allclose(back, inside, atol=1e-6)
    assert max(float(x.abs().max()) for x in seen) > 1.1


def test_wrong_use_gives_a_sentence():
    [(_, chain)] = chains(5)
    for stop in (-1, 5):
        with pytest.raises(DdpmError, match=r"must lie in 0\.\.4"):
            invert(chain, lambda x, t: x, images(), stop=stop)
    with pytest.raises(DdpmError, match="corrections must be at least 0"):
        invert(chain, lambda x, t: x, images(), corrections=-1)
