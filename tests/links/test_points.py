"""examples/points.py: points of known density, by the diffusion, loss and samplers of images."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import distributions

import ddpm
from ddpm.diffusion.bound_terms import prior_bpd, vb_term
from ddpm.errors import DdpmError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import points
from points import Mixture, Mlp, bound, chain_between, energy_distance, noised, ring, train

from typecheck import unchecked

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "score-matching.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def diffusion():
    """The paper's chain, for points."""
    return ddpm.GaussianDiffusion(ddpm.make_schedule(), clip_sample=False)


def odd_mixture():
    """Three Gaussians without any symmetry, in float64."""
    return Mixture(torch.tensor([[0.9, 0.2], [-0.4, 0.8], [-0.3, -0.7]]).double(), 0.3)


# -- what the example calls exact ---------------------------------------------------------------


@pytest.mark.parametrize("abar", [1.0, 0.7, 0.05])
def test_the_exact_density_and_score_are_those_of_the_diffused_mixture(abar):
    data = odd_mixture()
    deviation = (abar * data.std**2 + 1 - abar) ** 0.5
    parts = distributions.Normal(abar**0.5 * data.means, torch.tensor(deviation).double())
    law = distributions.MixtureSameFamily(
        distributions.Categorical(torch.ones(3).double()), distributions.Independent(parts, 1)
    )
    x = torch.randn(50, 2).double().requires_grad_()
    density = law.log_prob(x)
    slope = torch.autograd.grad(density.sum(), x)[0]
    assert torch.allclose(data.log_prob(x, abar), density, atol=1e-10)
    assert torch.allclose(data.score(x, abar), slope, atol=1e-10)
    assert torch.allclose(data.score(x, torch.full((50,), abar)), slope, atol=1e-6)


def test_x_t_is_distributed_as_said(diffusion):
    data, t, n = ring(), 150, 20_000
    abar = float(diffusion.schedule.alphas_cumprod[t])
    scores = data.score(noised(data, diffusion, t, n), abar)
    # E score = 0, and E score^T x = -2 (Stein), each to five standard errors.
    assert float(scores.mean(0).abs().max()) < 5 * float(scores.std()) / n**0.5
    x = noised(data, diffusion, t, n)
    products = (data.score(x, abar) * x).sum(1)
    assert abs(float(products.mean()) + 2) < 5 * float(products.std()) / n**0.5


def test_the_exact_denoiser_gives_the_posterior_mean_of_x_0(diffusion):
    data, t = odd_mixture(), torch.tensor([5, 100, 400, 800])
    x_t = torch.randn(4, 2).double()
    grid = torch.cartesian_prod(*[torch.linspace(-3, 3, 601).double()] * 2)
    abar = torch.tensor(diffusion.schedule.alphas_cumprod)[t]
    exact = diffusion.p_mean_variance(data.denoiser(diffusion), x_t, t).pred_xstart
    for i in range(4):
        squares = (x_t[i] - abar[i].sqrt() * grid).square().sum(1) / (2 * (1 - abar[i]))
        weights = (data.log_prob(grid) - squares).softmax(0)
        assert exact[i].tolist() == pytest.approx((weights @ grid).tolist(), abs=1e-4)


def test_equal_laws_are_at_no_distance_and_others_at_theirs():
    x, y, far = torch.randn(2000, 2), torch.randn(2000, 2), torch.randn(2000, 2)
    far[:, 0] += 1
    # |z + c| of z ~ N(0, 2 I) with |c| = 1 has Rice's density; of z itself the mean is sqrt(pi).
    radius = torch.linspace(1e-4, 20, 20_001).double()
    bessel = torch.special.i0(radius / 2) * torch.exp(-(radius**2 + 1) / 4) * radius / 2
    moved = torch.trapezoid(radius * bessel, radius)
    expected = 2 * float(moved) - 2 * math.pi**0.5
    assert energy_distance(x, far) == pytest.approx(expected, abs=0.03)
    assert abs(energy_distance(x, y)) < 0.003


# -- a network that is no U-Net on data that are no images --------------------------------------


def test_points_are_trained_on_by_the_packages_loss(diffusion):
    data = ring()
    network = train(data, diffusion, steps=150)
    x, t, noise = data.sample(4000), torch.randint(1000, (4000,)), torch.randn(4000, 2)
    with torch.no_grad():
        loss = ddpm.training_loss(diffusion, network, x, t, noise).mean()
        bits = ddpm.training_loss(diffusion, network, x, t.clamp(min=1), noise, "vlb")
        best = ddpm.training_loss(diffusion, data.denoiser(diffusion), x, t, noise).mean()
    assert float(best) < float(loss) < 0.5  # 1 for a network that says nothing
    assert bits.shape == (4000,)


@pytest.mark.parametrize("sampler", [ddpm.Ancestral(), ddpm.Ddim(), ddpm.DpmSolver(), ddpm.Heun(),
                                     ddpm.UniPc(), ddpm.Langevin()])  # fmt: skip
def test_every_sampler_draws_points(diffusion, sampler):
    """With the exact score: 300 points on the ring, wherever the sampler comes from."""
    data = ring()
    drawn = points.annealed_langevin(diffusion, data.denoiser(diffusion), 300, 60, sampler)
    assert drawn.shape == (300, 2)
    # No further from data than five standard deviations of two fresh samples of this size.
    mean, deviation = points.fresh_distances(data, 300)
    assert energy_distance(drawn, data.sample(300)) < mean + 5 * deviation
    # That hardly sees a width. -log q does: 0.31 nats for the data, 0.5 after Algorithm 2 and 0.8
    # after Langevin dynamics on 60 noise levels; with 0.7 of the noise 0.0, with 1.4 of it 1.2.
    assert 0.1 < -float(data.log_prob(drawn).mean()) < 1.1


# -- the bound ----------------------------------------------------------------------------------


def test_the_bound_is_exact_for_each_point_and_path_where_the_reverse_chain_is():
    """Of N(0, I) the reverse of a step is N(sqrt(alpha) x, beta I), which fixed_large has."""
    chain = chain_between(50, first=0.999999)
    data = Mixture(torch.zeros(1, 2), 1.0)
    x = data.sample(200)
    assert torch.allclose(bound(chain, data.denoiser(chain), x), -data.log_prob(x), atol=0.02)


@pytest.mark.parametrize("variance", ["fixed_large", "fixed_small"])
def test_one_path_of_eq_3_is_eq_5_in_the_mean(variance):
    chain, data, n = chain_between(12, 0.99, 0.01, variance), ring(std=0.3), 4000
    denoiser = data.denoiser(chain)
    x = data.sample(n)
    bits = prior_bpd(chain, x)
    for index in range(1, 12):
        t = torch.full((n,), index)
        x_t = chain.q_sample(x, t, torch.randn_like(x))
        bits = bits + vb_term(chain, denoiser, x, x_t, t)[0]
    x_1 = chain.q_sample(x, torch.zeros(n, dtype=torch.long), torch.randn_like(x))
    p = chain.p_mean_variance(denoiser, x_1, torch.zeros(n, dtype=torch.long))
    last = distributions.Normal(p.pred_xstart, (1 / 0.99 - 1) ** 0.5).log_prob(x).sum(1)
    by_terms = 2 * math.log(2) * bits - last
    difference = bound(chain, denoiser, x) - by_terms
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / n**0.5


# -- mistakes -----------------------------------------------------------------------------------


def test_mistakes_are_one_sentence(diffusion):
    data, three = ring(), torch.randn(5, 3)
    times = torch.full((5,), 3)
    for make in (
        lambda: Mlp()(three, times),
        lambda: data.log_prob(three),
        lambda: data.score(three[0]),
        lambda: diffusion.p_mean_variance(data.denoiser(diffusion), three, times),
    ):
        with pytest.raises(DdpmError, match=r"points of shape \[n, 2\], got \[(5, )?3\]$"):
            make()
    schedule = ddpm.make_schedule(beta_start=1e-7, beta_end=1e-6)
    with pytest.raises(DdpmError, match=r"ends at abar = 0\.999, where the data still shows"):
        train(data, ddpm.GaussianDiffusion(schedule, clip_sample=False), steps=1)


@pytest.mark.parametrize("t", [-1, 1000])
def test_a_time_out_of_range_is_one_sentence_everywhere(diffusion, t):
    x, times = torch.randn(2, 2), torch.tensor([5, t])
    network = ring().denoiser(diffusion)
    for make in (
        lambda: diffusion.q_sample(x, times, x),
        lambda: diffusion.p_mean_variance(network, x, times),
        lambda: ddpm.training_loss(diffusion, network, x, times, x),
    ):
        with pytest.raises(DdpmError, match=rf"t must lie in 0\.\.999, .*, got {t}$"):
            make()
    diffusion.q_sample(x, torch.tensor([0, 999]), x)


def test_a_schedule_without_noise_is_one_sentence():
    for betas in ([1e-17], [1e-17] * 10, [1e-17, 0.1]):
        with pytest.raises(DdpmError, match=r"betas\[0\] is 1e-17, .* make it 1e-12 or more"):
            ddpm.schedule_from_betas(betas)
    assert ddpm.schedule_from_betas([1e-12]).posterior_mean_coef1[0] == pytest.approx(1, rel=1e-3)


# -- the example and the page -------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_runs_and_draws(tmp_path, capsys):
    with unchecked():  # which is most of the time of so many small steps
        points.main(tmp_path, steps=30, n=60)
    told = capsys.readouterr().out
    for words in ("ring, t = 400", "moons: Langevin is at", "nats above -log q", "T = 256:"):
        assert words in told
    assert {path.name for path in tmp_path.iterdir()} == {
        "points-ring.png", "points-moons.png", "points-ring-energy.png",
        "points-moons-energy.png", "points-chains.png",
    }  # fmt: skip


def test_the_pages_code_runs():
    known = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(compile(block, "score-matching.md", "exec"), known)
    assert known


def test_the_pages_pictures_are_small_and_there():
    names = re.findall(r"\]\((figures/points[\w-]*\.png)\)", PAGE)
    assert len(names) == 5
    for name in names:
        assert (ROOT / "docs" / name).stat().st_size < 250_000
